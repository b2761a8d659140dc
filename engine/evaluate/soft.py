"""A model against a table of soft labels: KL where they are distributions, average precision where an image may have several."""

import time
from typing import Any

import numpy as np
import pyarrow as pa

from engine.evaluate.evaluate import predict_all
from engine.gather.soft import file_digest, read_labels
from engine.images.collection import Collection
from engine.job_settings import SoftSettings
from engine.labels.classes import ClassManifest
from engine.labels.tables import dense_rows
from engine.labels.targets import dense
from engine.metrics.soft import average_precision, kl_divergence
from engine.run import Run
from engine.select.scores import classes_of, probability, scores_of
from engine.settings import PredictSettings
from engine.steps import Output, Step

REVISION = 1


def evaluate_soft(
    run: Run,
    label: str,
    model: Output,
    collection: Collection,
    classes: ClassManifest,
    settings: PredictSettings,
    soft: SoftSettings,
) -> Output:
    """Summary {images, kl, kl_error, agreement} of distributions, {images, mean_average_precision, average_precision} of several labels.

    Raises ValueError for logits: compare probabilities.
    """
    if soft.kind == "logits":
        raise ValueError(
            "soft.kind=logits cannot be evaluated: logits are only known up to a constant; write them as probabilities"
        )
    activation = "sigmoid" if soft.kind == "labels" else "softmax"
    whole = settings.of_the_model().model_copy(update={"top_p": len(classes), "activation": activation})
    inputs = {
        "model": model.digest,
        "images": collection.digest,
        "classes": classes.hash,
        "table": file_digest(soft.table),
    }

    def work(step: Step) -> Output:
        started = time.time()
        labels = read_labels(soft, collection, classes)
        predictions = predict_all(run, step, model, collection, whole)
        answered = np.full(collection.manifest.num_rows, -1)
        answered[collection.at(predictions)] = np.arange(predictions.num_rows)
        found = answered[labels.place]
        truth = several(labels.targets, len(classes)) if soft.kind == "labels" else dense(labels.targets, len(classes))
        summary = compare(truth[found >= 0], predictions.take(pa.array(found[found >= 0])), soft.kind, classes)
        return step.commit([], summary, started)

    recorded = {**whole.fingerprinted(), "soft": soft.model_dump(exclude={"table"})}
    return run.step(label, "evaluate", REVISION, recorded, inputs, work)


def compare(truth: np.ndarray, predictions: pa.Table, kind: str, classes: ClassManifest) -> dict[str, Any]:
    """The summary from `truth` (n, C) and predictions of the same images that hold all classes."""
    index, score = classes_of(predictions).astype(np.int64), probability(scores_of(predictions))
    if kind == "labels":
        answers = np.zeros(truth.shape)
        np.put_along_axis(answers, index, score, axis=1)
        each = {name: average_precision(truth[:, c] >= 0.5, answers[:, c]) for c, name in enumerate(classes.names)}
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


def several(targets: Any, num_classes: int) -> np.ndarray:
    """Several labels an image as (n, C), 0 where a class is not listed."""
    lengths = np.diff(np.asarray(targets.classes.offsets))
    made = np.zeros((len(lengths), num_classes), np.float32)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    made[rows, np.asarray(targets.classes.flatten()).astype(np.int64)] = np.asarray(targets.weights.flatten())
    return made
