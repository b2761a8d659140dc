"""Choose pseudo-labels from stored predictions; another threshold or quota costs no inference.

python -m jobs.select jobs/configs/select.yaml predictions=predict-0123456789abcdef select.threshold=0.9
"""

from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store, read_output
from engine.images.collection import open_collection
from engine.models.fetch import teacher_classes
from engine.predict.pool import pool_of
from engine.select.exclusion import ReferenceSets
from engine.select.pipeline import select
from engine.settings.block import load
from engine.settings.data import SourceSettings
from engine.settings.jobs import SelectJobSettings
from jobs import command


def main() -> None:
    arguments = command.parser("select", __doc__, SelectJobSettings).parse_args()
    settings = load(SelectJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    predictions = read_output(run.store, settings.predictions)
    if predictions is None:
        raise ValueError(
            f"{settings.predictions}: not a finished step of {settings.store}; `python -m jobs.status {settings.store}` lists them"
        )
    pool = pool_of(run.store, predictions)
    names = {f"known {number}": uri for number, uri in enumerate(settings.known, 1)}
    known = {name: open_collection(run, name, uri, SourceSettings()) for name, uri in names.items()}
    around = ReferenceSets(pool, known) if pool is not None else None
    classes = teacher_classes(run.store, predictions)
    with connect(settings.cluster):
        output = select(run, "select", predictions, classes, settings.select, around=around)
    log_event(
        "done", f"{output.summary['selected']} pseudo-labels in {output.uri}; train on them with pseudo={output.step}"
    )


if __name__ == "__main__":
    command.run(main)
