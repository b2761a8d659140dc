"""Label a collection with a model: one part of top-P predictions a shard, in the store.

    python -m jobs.predict jobs/configs/predict.yaml model=/models/teacher images.uri=/photos/pool

Run it again after a kill: the shards that were finished are not labelled twice.
"""

from engine.dedup.hashing import hash_images
from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.overlap import build_exclusion_set
from engine.images.scope import Scope
from engine.models.imported import find_model
from engine.predict.pipeline import predict
from engine.settings.block import load
from engine.settings.jobs import PredictJobSettings
from jobs import command


def main() -> None:
    arguments = command.parser("predict", __doc__, PredictJobSettings).parse_args()
    settings = load(PredictJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    model = find_model(run, settings.model)
    images = open_collection(run, "images", settings.images.uri, settings.images)
    with connect(settings.cluster):
        kept_out = {
            uri: hash_images(run, open_collection(run, uri, uri, settings.images)) for uri in settings.images.exclude
        }
        held = build_exclusion_set(kept_out) if kept_out else None
        scope = Scope(images, exclusions=held, max_rejected_percent=settings.images.max_rejected_percent)
        output = predict(run, "predict", model, scope, settings.predict)
    log_event("done", f"{output.summary['images']} images labelled; select from them with predictions={output.step}")


if __name__ == "__main__":
    command.run(main)
