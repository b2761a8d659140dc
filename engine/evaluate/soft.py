"""A model against a table of soft labels: KL where they are distributions, average precision where an image may have several."""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from engine.evaluate.evaluate import labelled_inputs, read_all
from engine.gather.soft import file_digest, read_labels
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.labels.soft_tables import dense_rows
from engine.labels.targets import Targets, dense
from engine.metrics.soft import average_precision, kl_divergence
from engine.models.checkpoint import class_names
from engine.models.fetch import fetch_model
from engine.probe.predicting import predict
from engine.select.scores import classes_of, probability, scores_of
from engine.settings.jobs import SoftSettings
from engine.settings.predict import PredictSettings

VERB, REVISION = "evaluate_soft", 1


def evaluate_soft(
    run: Run, label: str, model: Output, scope: Scope, settings: PredictSettings, soft: SoftSettings
) -> Output:
    """Summary {images, rejected, reasons} with {kl, kl_error, agreement} of distributions, {mean_average_precision, average_precision} of several
    labels. `images` are those of `scope` that the table names and that could be read.

    Raises ValueError for logits, and when the table names no image of the scope; TooManyRejectsError as `predict` does.
    """
    if soft.kind == "logits":
        raise ValueError(
            "soft.kind=logits cannot be evaluated: logits are known only up to a constant. Write them as probabilities."
        )
    classes = ClassList(tuple(class_names(fetch_model(model, run.store.fs))))
    activation = "sigmoid" if soft.kind == "labels" else "softmax"
    whole = settings.for_evaluation().model_copy(update={"top_p": len(classes), "activation": activation})
    predictions = predict(run, f"{label} predict", model, scope, whole)
    inputs = labelled_inputs(model, predictions, scope, classes) | {"table": file_digest(soft.table)}

    def work(step: Step) -> Output:
        started = time.time()
        labels = read_labels(soft, scope.collection, classes)
        table = read_all(predictions, run, classes)
        prediction_of = np.full(scope.manifest.num_rows, -1)
        prediction_of[scope.collection.at(table)] = np.arange(table.num_rows)
        found = prediction_of[labels.position]
        if not (found >= 0).any():
            raise ValueError(f"{soft.table}: names no image of {scope.name} that could be read")
        truth = several(labels.targets, len(classes)) if soft.kind == "labels" else dense(labels.targets, len(classes))
        compared = compare(truth[found >= 0], table.take(pa.array(found[found >= 0])), soft.kind, classes)
        rejected = {name: predictions.summary[name] for name in ("rejected", "reasons")}
        return step.commit([], compared | rejected, started)

    return run.find_or_run_step(label, StepRecord(VERB, REVISION, {"soft": soft}, inputs), work)


def compare(truth: np.ndarray, predictions: pa.Table, kind: str, classes: ClassList) -> dict[str, Any]:
    """The summary from `truth` (n, C) and predictions of the same images that hold all classes."""
    index, score = classes_of(predictions).astype(np.int64), probability(scores_of(predictions))
    if kind == "labels":
        scores = np.zeros(truth.shape)
        np.put_along_axis(scores, index, score, axis=1)
        each = {name: average_precision(truth[:, c] >= 0.5, scores[:, c]) for c, name in enumerate(classes.names)}
        known = [value for value in each.values() if not np.isnan(value)]
        return {
            "images": len(truth),
            "mean_average_precision": float(np.mean(known)) if known else None,
            "average_precision": {name: value for name, value in each.items() if not np.isnan(value)},
        }
    lost = kl_divergence(truth, dense_rows(index, score, len(classes)))
    return {
        "images": len(truth),
        "kl": float(lost.mean()),
        "kl_error": float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else None,
        "agreement": float(np.mean(index[:, 0] == truth.argmax(axis=1))),
    }


def several(targets: Targets, num_classes: int) -> np.ndarray:
    """Several labels per image as (n, C), 0 where a class is not listed."""
    lengths = np.diff(np.asarray(targets.classes.offsets))
    labels = np.zeros((len(lengths), num_classes), np.float32)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    labels[rows, np.asarray(targets.classes.flatten()).astype(np.int64)] = np.asarray(targets.weights.flatten())
    return labels
