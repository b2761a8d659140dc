"""Choose pseudo-labels from stored predictions; another threshold or quota costs no inference.

python -m jobs.select jobs/configs/select.yaml predictions=predict-0123456789abcdef select.threshold=0.9
"""

from engine.labels.classes import ClassManifest
from engine.models.checkpoint import class_names
from engine.models.fetch import fetch_model
from engine.progress import say
from engine.run import Run
from engine.select.reduce import select
from engine.session import connect
from engine.settings import SelectJobSettings, load
from engine.steps import Output, Store, read_output
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
    with connect(settings.cluster):
        output = select(run, "select", predictions, teacher_classes(run, predictions), settings.select)
    say("done", f"{output.summary['selected']} pseudo-labels in {output.uri}; train on them with pseudo={output.step}")


def teacher_classes(run: Run, predictions: Output) -> ClassManifest:
    """The classes that the predictions speak of: those of the model that made them."""
    model = read_output(run.store, predictions.summary["model"])
    if model is None:
        raise ValueError(
            f"{predictions.step}: the model that made it, {predictions.summary['model']}, is no longer in the store"
        )
    return ClassManifest(tuple(class_names(fetch_model(model, run.store.fs))))


if __name__ == "__main__":
    command.run(main)
