"""Predict a collection with a model: the top-P predictions of each shard become a part of a step in the store.

    python -m jobs.predict jobs/configs/predict.yaml model=/models/teacher images.uri=/photos/pool

After a kill, run it again: finished shards are not predicted twice.
"""

from engine.dedup.hashing import hash_excluded
from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.models.checkpoint import describe
from engine.models.fetch import fetch_model
from engine.models.imported import find_model
from engine.probe.predicting import predict
from engine.settings.block import load
from engine.settings.jobs import PredictJobSettings
from engine.tasks.registry import find_answers
from jobs import cli


def main() -> None:
    arguments = cli.parser("predict", __doc__, PredictJobSettings).parse_args()
    settings = load(PredictJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    model = find_model(run, settings.model)
    images = open_collection(run, "images", settings.images.uri, settings.images)
    with connect(settings.cluster):
        exclusions = hash_excluded(run, settings.images)
        scope = Scope(images, exclusions=exclusions, max_rejected_percent=settings.images.max_rejected_percent)
        answers = find_answers(describe(fetch_model(model, run.store.fs)).settings)
        output = predict(run, "predict", model, scope, settings.predict, answers)
    log_event("done", f"{output.summary['images']} images predicted; to select from them: predictions={output.step}")


if __name__ == "__main__":
    cli.run(main)
