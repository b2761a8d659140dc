"""A model over a labelled set: the same labelling lines as `predict`, then accuracy with its interval and calibration."""

import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from engine import heap
from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.labels.classes import ClassManifest
from engine.metrics.accuracy import wilson
from engine.metrics.calibration import expected_calibration_error
from engine.models.fetch import fetch_model
from engine.predict.labelling import ShardLabeller
from engine.predict.predictor import Predictor
from engine.progress import say
from engine.resources import ANYWHERE, labelling_actors
from engine.run import Run
from engine.select.scores import classes_of, probability, scores_of
from engine.settings import PredictSettings
from engine.steps import Output, Step, read_tables

REVISION = 2

ANSWERS = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("truth", pa.int32()),
        ("predicted", pa.int32()),
        ("confidence", pa.float32()),
    ]
)
"""One labelled image and what the model says of it; `predicted` is -1 for an image that could not be decoded, which counts as wrong."""


def evaluate(
    run: Run,
    label: str,
    model: Output,
    collection: Collection,
    classes: ClassManifest,
    settings: PredictSettings,
    corruption: tuple[str, int] | None = None,
) -> Output:
    """Accuracy of `model` on a labelled collection: summary {images, correct, accuracy, low, high, ece, per_class}; parts are ANSWERS.

    `corruption`: family and severity (`images.corruptions`) of what every image goes through first.
    """
    inputs = {"model": model.digest, "images": collection.digest, "classes": classes.hash}
    one = settings.of_the_model().model_copy(update={"top_p": 1})

    def work(step: Step) -> Output:
        started = time.time()
        truth = collection.class_indices(classes)
        table = answers(collection, truth, predict_all(run, step, model, collection, one, corruption))
        part = step.put_part(0, table)
        summary = summarise(table, classes)
        say(
            label,
            f"accuracy {summary['accuracy']:.2%} [{summary['low']:.2%}, {summary['high']:.2%}] of {summary['images']} images",
        )
        return step.commit([part], summary, started)

    corrupted = {} if corruption is None else {"corruption": list(corruption)}
    return run.step(label, "evaluate", REVISION, {**one.fingerprinted(), **corrupted}, inputs, work)


def predict_all(
    run: Run,
    step: Step,
    model: Output,
    collection: Collection,
    settings: PredictSettings,
    corruption: tuple[str, int] | None = None,
) -> pa.Table:
    """Predictions (schema.predictions) of a whole collection, in memory, in no particular order."""
    actors = labelling_actors(run.cluster, collection.manifest.num_shards)
    task = ray.remote(
        scheduling_strategy=ANYWHERE, num_cpus=actors.cpus, num_gpus=actors.gpus, max_retries=run.cluster.max_failures
    )(predict_shards)
    shares = np.array_split(np.arange(collection.manifest.num_shards), actors.count)
    return pa.concat_tables(
        ray.get(
            [
                task.remote(step, model, collection.manifest, settings, s.tolist(), actors.threads, corruption)
                for s in shares
            ]
        )
    )


def predict_shards(
    step: Step,
    model: Output,
    manifest: Manifest,
    settings: PredictSettings,
    shards: list[int],
    threads: int,
    corruption: tuple[str, int] | None = None,
) -> pa.Table:
    """Predictions (schema.predictions) of whole shards, in memory: for sets of up to some 100,000 images."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scope = Scope(Collection("", manifest), corruption=corruption)
    labeller = ShardLabeller(scope, Predictor(fetch_model(model, step.fs), settings, device))
    with heap.freed_kept():
        return pa.concat_tables([labeller.schema.empty_table(), *(labeller(shard).predictions for shard in shards)])


def answers(collection: Collection, truth: np.ndarray, predictions: pa.Table) -> pa.Table:
    """Truth and prediction side by side for every image of the collection, in address order."""
    labels = collection.manifest.labels()
    position = collection.positions(predictions["shard"].to_numpy(), predictions["row"].to_numpy())
    predicted = np.full(truth.size, -1, np.int32)
    confidence = np.zeros(truth.size, np.float32)
    predicted[position] = classes_of(predictions)[:, 0]
    confidence[position] = probability(scores_of(predictions)[:, 0])
    return pa.table([labels["shard"], labels["row"], truth.astype(np.int32), predicted, confidence], schema=ANSWERS)


def summarise(table: pa.Table, classes: ClassManifest) -> dict[str, Any]:
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


def correctness(output: Output, run: Run) -> np.ndarray:
    """Whether each image of an evaluated set was right: bool (N,) in address order, for paired tests."""
    table = pa.concat_tables(table for _, table in read_tables(output, run.store.fs, ["truth", "predicted"]))
    return table["truth"].to_numpy() == table["predicted"].to_numpy()
