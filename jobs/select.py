"""Select pseudo-labels from stored predictions; another threshold or quota needs no inference.

python -m jobs.select jobs/configs/select.yaml predictions=predict-0123456789abcdef select.threshold=0.9
"""

from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Output, Store, read_output
from engine.images.collection import open_collection
from engine.labels.classes import ClassList
from engine.models.fetch import teacher_classes
from engine.predict.pool import pool_of, settings_of
from engine.select.exclusion import ReferenceSets
from engine.select.pipeline import SelectSpec, select
from engine.settings.block import load
from engine.settings.data import SourceSettings
from engine.settings.jobs import SelectJobSettings
from engine.settings.select import check_several_labels, check_stored
from jobs import cli


def main() -> None:
    arguments = cli.parser("select", __doc__, SelectJobSettings).parse_args()
    settings = load(SelectJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    predictions = read_output(run.store, settings.predictions)
    if predictions is None:
        raise ValueError(
            f"{settings.predictions}: not a finished step of {settings.store}. `python -m jobs.status {settings.store}` lists the steps."
        )
    classes = teacher_classes(run.store, predictions)
    check_predictions(run.store, predictions, settings, classes)
    pool = pool_of(run.store, predictions)
    names = {f"known {number}": uri for number, uri in enumerate(settings.known, 1)}
    known = {name: open_collection(run, name, uri, SourceSettings()) for name, uri in names.items()}
    around = ReferenceSets(pool, known) if pool is not None else None
    with connect(settings.cluster):
        output = select(run, "select", predictions, SelectSpec(settings.select, classes, around=around))
    log_event(
        "done", f"{output.summary['selected']} pseudo-labels in {output.uri}; to train on them: pseudo={output.step}"
    )


def check_predictions(store: Store, predictions: Output, settings: SelectJobSettings, classes: ClassList) -> None:
    """Raise ValueError when the selection needs scores or classes that the predictions lack, according to their record."""
    stored = settings_of(store, predictions)
    if stored.activation == "sigmoid":
        check_several_labels(settings.select)
    check_stored(settings.select, min(stored.top_p, len(classes)), stored.columns, classes.names)


if __name__ == "__main__":
    cli.run(main)
