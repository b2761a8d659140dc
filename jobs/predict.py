"""Label a collection with a model: one part of top-P predictions a shard, in the store.

    python -m jobs.predict jobs/configs/predict.yaml model=/models/teacher images.uri=/photos/pool

Run it again after a kill: the shards that were finished are not labelled twice.
"""

from engine.config import load
from engine.images.collection import collect
from engine.images.hashing import hashed
from engine.images.overlap import held_out
from engine.images.scope import Scope
from engine.job_settings import PredictJobSettings
from engine.models.imported import find_model
from engine.predict.pipeline import predict
from engine.progress import say
from engine.run import Run
from engine.session import connect
from engine.steps import Store
from jobs import command


def main() -> None:
    arguments = command.parser("predict", __doc__).parse_args()
    settings = load(PredictJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    model = find_model(run, settings.model)
    images = collect(run, "images", settings.images.uri, settings.images)
    with connect(settings.cluster):
        kept_out = {uri: hashed(run, collect(run, uri, uri, settings.images)) for uri in settings.images.exclude}
        held = held_out(kept_out) if kept_out else None
        scope = Scope(images, exclusions=held, max_rejected_percent=settings.images.max_rejected_percent)
        output = predict(run, "predict", model, scope, settings.predict)
    say("done", f"{output.summary['images']} images labelled; select from them with predictions={output.step}")


if __name__ == "__main__":
    command.run(main)
