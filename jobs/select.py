"""Choose pseudo-labels from stored predictions; another threshold or quota costs no inference.

python -m jobs.select jobs/configs/select.yaml predictions=predict-0123456789abcdef select.threshold=0.9
"""

from engine.config import load
from engine.images.collection import collect
from engine.job_settings import SelectJobSettings
from engine.models.fetch import teacher_classes
from engine.predict.pool import pool_of
from engine.progress import say
from engine.run import Run
from engine.select.exclusion import Surroundings
from engine.select.reduce import select
from engine.session import connect
from engine.settings import SourceSettings
from engine.steps import Store, read_output
from jobs import command


def main() -> None:
    arguments = command.parser("select", __doc__).parse_args()
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
    known = {name: collect(run, name, uri, SourceSettings()) for name, uri in names.items()}
    around = Surroundings(pool, known) if pool is not None else None
    classes = teacher_classes(run.store, predictions)
    with connect(settings.cluster):
        output = select(run, "select", predictions, classes, settings.select, around=around)
    say("done", f"{output.summary['selected']} pseudo-labels in {output.uri}; train on them with pseudo={output.step}")


if __name__ == "__main__":
    command.run(main)
