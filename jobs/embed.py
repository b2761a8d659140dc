"""Embed a collection with a frozen network: the float16 features of each shard become a part of a step in the store.

    python -m jobs.embed jobs/configs/embed.yaml model=/models/backbone images.uri=/photos/pool

After a kill, run it again: finished shards are not embedded twice. Recipes and heads that need the same features find them.
"""

from engine.embed.backbone import make_backbone
from engine.embed.pipeline import embed
from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.models.checkpoint import read_config
from engine.models.fetch import fetch_model
from engine.models.imported import find_model
from engine.settings.block import load
from engine.settings.embed import EmbedJobSettings
from jobs import cli


def main() -> None:
    arguments = cli.parser("embed", __doc__, EmbedJobSettings).parse_args()
    settings = load(EmbedJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    weights = find_model(run, settings.model, as_init=True)
    network = read_config(fetch_model(weights, run.store.fs)).settings
    if settings.img_size is not None:
        network = network.model_copy(update={"img_size": settings.img_size})
    images = open_collection(run, "images", settings.images.uri, settings.images)
    with connect(settings.cluster):
        backbone = make_backbone(run, network, weights)
        scope = Scope(images, max_rejected_percent=settings.images.max_rejected_percent)
        output = embed(run, backbone, scope, settings.embed)
    size = sum(part.bytes for part in output.parts(run.store.fs))
    log_event(
        "done",
        f"{output.summary['images']:,} images embedded as {backbone.summary['dim']:,} float16 values each, {size / 2**20:,.1f} MiB: {output.step}",
    )


if __name__ == "__main__":
    cli.run(main)
