"""A model over a labelled scope: `predict`, then a pure measure of what it predicted."""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.ground.steps import Output, Step, read_tables
from engine.images.lost_classes import check_no_class_lost
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.metrics.accuracy import wilson
from engine.metrics.calibration import expected_calibration_error
from engine.predict.pipeline import predict
from engine.select.scores import classes_of, probability, scores_of
from engine.settings.predict import PredictSettings
from engine.tables.schema import CLASSES_HASH

VERB, REVISION = "evaluate", 3

ANSWERS = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("truth", pa.int32()),
        ("predicted", pa.int32()),
        ("confidence", pa.float32()),
    ]
)
"""One labelled image that could be read, and what the model predicts for it."""


def evaluate(
    run: Run, label: str, model: Output, scope: Scope, classes: ClassList, settings: PredictSettings
) -> Output:
    """Accuracy of `model` on a labelled scope: summary {images, rejected, reasons, correct, accuracy, low, high, ece, per_class}; one part of
    ANSWERS in address order.

    Images that cannot be read are `rejected`: they are in no number but that one. Raises TooManyRejectsError when they are more than
    `scope.max_rejected_percent`, and ValueError when a class lost all its images.
    """
    only_best = settings.for_evaluation().model_copy(update={"top_p": 1})
    predictions = predict(run, f"{label} predict", model, scope, only_best)

    def work(step: Step) -> Output:
        started = time.time()
        table = match_truth(scope, classes, read_all(predictions, run, classes))
        check_no_class_lost(scope, classes, table["truth"].to_numpy(), predictions.step)
        summary = summarise(table, classes) | {name: predictions.summary[name] for name in ("rejected", "reasons")}
        log_event(label, line(summary))
        return step.commit([step.put_part(0, table)], summary, started)

    return run.find_or_run_step(label, VERB, REVISION, {}, labelled_inputs(model, predictions, scope, classes), work)


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


def match_truth(scope: Scope, classes: ClassList, predictions: pa.Table) -> pa.Table:
    """ANSWERS: truth and prediction of every image that has a prediction. Raises ValueError for an image without a label."""
    truth = scope.collection.class_indices(classes)[scope.collection.at(predictions)]
    predicted = classes_of(predictions)[:, 0].astype(np.int32)
    confidence = probability(scores_of(predictions)[:, 0]).astype(np.float32)
    columns = [predictions["shard"], predictions["row"], pa.array(truth.astype(np.int32)), predicted, confidence]
    return pa.table(columns, schema=ANSWERS)


def summarise(table: pa.Table, classes: ClassList) -> dict[str, Any]:
    """Accuracy with its 95 % Wilson interval, expected calibration error and accuracy per class."""
    truth, predicted = table["truth"].to_numpy(), table["predicted"].to_numpy()
    right = truth == predicted
    low, high = wilson(int(right.sum()), right.size)
    per_class = {
        name: float(right[truth == index].mean()) for index, name in enumerate(classes.names) if (truth == index).any()
    }
    return {
        "images": int(right.size),
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "low": low,
        "high": high,
        "ece": expected_calibration_error(table["confidence"].to_numpy(), right),
        "per_class": per_class,
    }


def line(summary: dict[str, Any]) -> str:
    """The score, its interval and the images it stands on."""
    rejected = f"; {summary['rejected']:,} more could not be read" if summary["rejected"] else ""
    interval = f"[{summary['low']:.2%}, {summary['high']:.2%}]"
    return f"accuracy {summary['accuracy']:.2%} {interval} of {summary['images']} images{rejected}"


def shared_images(first: pa.Table, second: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of two tables of ANSWERS whose images are in both, in address order: what a paired test compares."""
    _, in_first, in_second = np.intersect1d(_address(first), _address(second), assume_unique=True, return_indices=True)
    return first.take(pa.array(in_first)), second.take(pa.array(in_second))


def _address(table: pa.Table) -> np.ndarray:
    return table["shard"].to_numpy().astype(np.int64) << 32 | table["row"].to_numpy()


def correctness(output: Output, run: Run) -> np.ndarray:
    """Whether each image of an evaluated set was right: bool (N,) in address order, for paired tests."""
    table = pa.concat_tables(table for _, table in read_tables(output, run.store.fs, ["truth", "predicted"]))
    return table["truth"].to_numpy() == table["predicted"].to_numpy()
