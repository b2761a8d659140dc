"""A model over a labelled scope: `predict`, then a pure measure of what it predicted."""

import time

import pyarrow as pa

from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, read_sidecar, read_tables
from engine.images.lost_classes import check_counts
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.metrics.score import Score
from engine.probe.predicting import predict
from engine.settings.predict import PredictSettings
from engine.tables.schema import CLASSES_HASH
from engine.tasks.task import Task

VERB, REVISION = "evaluate", 6


def evaluate(run: Run, label: str, model: Output, scope: Scope, task: Task, settings: PredictSettings) -> Output:
    """The score of `model` on a labelled scope: summary is the `Score` with {rejected, reasons}; one part, the rows of the task's measure.

    Images that cannot be read are `rejected`: they are in no number but that one. Raises TooManyRejectsError when they are more than
    `scope.max_rejected_percent`, and ValueError when a class lost all its images.
    """
    measure = task.measure
    stored = task.predict_settings(settings.for_evaluation()).model_copy(update={"top_p": measure.top_p})
    predictions = predict(run, f"{label} predict", model, scope, stored, task.answers)

    def work(step: Step) -> Output:
        started = time.time()
        truth = task.truth(scope.collection)
        by_shard = {part.unit: part for part in predictions.parts(run.store.fs)}

        def sidecar(folder: str, shard: int) -> pa.Table:
            return read_sidecar(predictions, run.store.fs, folder, by_shard[shard])

        rows = measure.rows(read_all(predictions, run, task.classes), truth, sidecar)
        before, after = (task.class_counts(values) for values in (truth.within(scope), truth.of(rows)))
        check_counts(scope.name, task.classes, before, after, predictions.step)
        score = measure.score(rows, predictions.summary["rejected"])
        log_event(label, f"{score}")
        summary = score.to_json() | {name: predictions.summary[name] for name in ("rejected", "reasons")}
        return step.commit([step.put_part(0, rows)], summary, started)

    inputs = labelled_inputs(model, predictions, scope, task.classes) | {"classes": task.digest}
    return run.find_or_run_step(label, StepRecord(VERB, REVISION, {}, inputs), work)


def score_of(evaluation: Output) -> Score:
    """The score that an evaluation came to."""
    return Score.from_json(evaluation.summary)


def rows_of(evaluation: Output, run: Run) -> pa.Table:
    """The rows of the task's measure that an evaluation stored, for paired tests."""
    return pa.concat_tables(table for _, table in read_tables(evaluation, run.store.fs))


def labelled_inputs(model: Output, predictions: Output, scope: Scope, classes: ClassList) -> dict[str, str]:
    """What a measure of predictions against the labels of their collection depends on."""
    return {
        "model": model.digest,
        "predictions": predictions.digest,
        "images": scope.collection.digest,
        "classes": classes.hash,
    }


def read_all(predictions: Output, run: Run, classes: ClassList) -> pa.Table:
    """Predictions (schema.predictions) of a labelled scope in address order. Raises ValueError when they are of other classes."""
    table = pa.concat_tables(table for _, table in read_tables(predictions, run.store.fs))
    found = (table.schema.metadata or {}).get(CLASSES_HASH, b"").decode()
    if found != classes.hash:
        raise ValueError(
            f"{predictions.step}: the model's classes are not those of the labels, {', '.join(classes.names[:10])}. "
            "Evaluate a model that was trained on these classes."
        )
    return table
