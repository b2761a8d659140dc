"""A finished run written straight into a store, without a cluster, with classes and keys of any kind: what the page is made of."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from engine.gather.arrange import arrange
from engine.ground.record import json_text
from engine.ground.run import Run
from engine.ground.steps import Output, Store
from engine.images.collection import Collection, open_collection
from engine.labels.classes import ClassList
from engine.metrics.interval import Interval
from engine.recipes.context import Evaluated, Generation
from engine.recipes.control import RunResult
from engine.recipes.policy import GuardDecision, Verdict
from engine.recipes.registry import SelfTrainSettings
from engine.report import table
from engine.select.scores import pack
from engine.select.select import Selector
from engine.settings.block import parse
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.model import ModelSettings
from engine.settings.select import SelectSettings
from engine.tables import schema
from engine.tasks.classify import ROWS, Classify
from tests.fake_run import made, put_model
from tests.small_run import small_tree

NETWORK = ModelSettings(model="resnet18")
SELECT = SelectSettings(threshold=0.6, per_class=3)
REJECTED = ("too\x1b[31m red\nkey", "truncated: image file is truncated (<b>3</b> bytes)")


@dataclass(frozen=True)
class PageRun:
    """The run, its pool, and the predictions of each generation."""

    run: Run
    pool: Collection
    classes: ClassList
    predictions: list[Output]
    selections: list[Output]

    @property
    def store(self) -> Store:
        return self.run.store


@dataclass(frozen=True)
class Plan:
    """What is made: class names, keys of the first images of the pool (others are numbered), images of the pool per class."""

    names: Sequence[str]
    keys: Sequence[str] = ()
    per_class: int = 6
    generations: int = 2
    rows_per_shard: int = 16
    select: SelectSettings = SELECT
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def images(self) -> int:
        return len(self.names) * self.per_class


def encoded(seed: int, side: int = 24, kind: str = "JPEG") -> bytes:
    """A picture of noise around one colour."""
    rng = np.random.default_rng(seed)
    pixels = (rng.integers(0, 200, 3) + rng.integers(0, 56, (side, side, 3))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def put_pool(path: Path, plan: Plan) -> None:
    """The pool: the second image is a single pixel, image i has class i modulo the classes."""
    keys = [*plan.keys, *(f"image-{i:06d}" for i in range(len(plan.keys), plan.images))]
    few = [encoded(seed) for seed in range(min(plan.images, 64))]
    images = [few[i % len(few)] for i in range(plan.images)]
    images[1] = encoded(1, side=1, kind="PNG")
    labels = [plan.names[i % len(plan.names)] for i in range(plan.images)]
    pq.write_table(pa.table({"key": keys, "image": images, "label": labels}), path, row_group_size=4096)


def put_labelled(path: Path, plan: Plan, each: int) -> None:
    """A labelled set, one table of images."""
    labels = [name for name in plan.names for _ in range(each)]
    few = [encoded(1000 + seed) for seed in range(16)]
    images = [few[i % 16] for i in range(len(labels))]
    pq.write_table(pa.table({"key": [f"k{i}" for i in range(len(labels))], "image": images, "label": labels}), path)


def page_run(folder: Path, plan: Plan) -> PageRun:
    """The run called `r` in `folder/store`: a teacher and some generations that know more and more."""
    folder.mkdir(parents=True, exist_ok=True)
    put_pool(folder / "pool.parquet", plan)
    for name, each in (("labelled", 2), ("validation", 4)):
        put_labelled(folder / f"{name}.parquet", plan, each)
    run = Run(Store(str(folder / "store")), "r", ClusterSettings())
    source = SourceSettings(key_column="key", label_column="label", rows_per_shard=plan.rows_per_shard)
    sets = {
        name: open_collection(run, name, str(folder / f"{name}.parquet"), source)
        for name in ("labelled", "validation", "pool")
    }
    save_settings(run, folder, plan)
    classes = ClassList(tuple(plan.names))
    labelled = made(run, "gather labelled", "gather", pa.table({"x": [0]}), {"images": sets["labelled"].digest})
    teacher = put_fit(run, "teacher", {"labelled": labelled}, classes)
    generations = [
        Generation("teacher", NETWORK, teacher, [teacher], put_evaluation(run, "teacher", teacher, classes, 0))
    ]
    found = PageRun(run, sets["pool"], classes, [], [])
    for number in range(1, plan.generations + 1):
        generations.append(put_generation(found, number, generations[-1].model, labelled, plan))
    run.put("metrics.json", json_text(table.metrics(run.store, RunResult(generations, generations[-1].name))).encode())
    return found


def put_generation(found: PageRun, number: int, teacher: Output, labelled: Output, plan: Plan) -> Generation:
    """Predictions, a selection, its order, a model and its score."""
    run, name = found.run, f"generation {number}"
    predicted = predictions_table(found.pool, found.classes, number)
    aside = pa.table([[0], [99], [REJECTED[0]], [REJECTED[1]]], schema=schema.QUARANTINE)
    predictions = made(
        run,
        f"{name} predict",
        "predict",
        predicted,
        {"model": teacher.digest, "images": found.pool.digest},
        quarantine=aside,
        model=teacher.step,
        images=predicted.num_rows,
        rejected=1,
        reasons={"truncated": 1},
    )
    selector = Selector(plan.select, found.classes)
    selector.update(predicted)
    chosen, report = selector.finish()
    pseudo = made(
        run,
        f"{name} select",
        "select",
        chosen,
        {"predictions": predictions.digest, "classes": found.classes.hash},
        settings=plan.select.model_dump(),
        selected=chosen.num_rows,
        predictions=predictions.step,
        report=report.as_dict(),
    )
    arrange(run, f"{name} gather select", pseudo, found.pool)
    gathered = made(run, f"{name} gather", "gather", pa.table({"x": [number]}), {"pseudo": pseudo.digest})
    model = put_fit(run, name, {"labelled": labelled, "pseudo": gathered}, found.classes)
    found.predictions.append(predictions)
    found.selections.append(pseudo)
    better = GuardDecision("continue", "student_better", "student better by 9.0 points (95 % CI 1.0 to 17.0), p = 0.03")
    return Generation(
        name,
        NETWORK,
        model,
        [predictions, pseudo, gathered, model],
        put_evaluation(run, name, model, found.classes, number),
        pseudo={"kept": chosen.num_rows, "correct": 0.75},
        guard=Verdict(better, obeyed=True, selected_share=0.5, difference=Interval(0.09, 0.01, 0.17)),
    )


def predictions_table(pool: Collection, classes: ClassList, number: int) -> pa.Table:
    """What teacher `number` predicts: the true class of most images, and the next class of some."""
    rows = pool.manifest.rows
    shard = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
    row = np.concatenate([np.arange(count, dtype=np.int32) for count in rows])
    place, rng = np.arange(len(row)), np.random.default_rng(number)
    best = (place + (rng.random(len(row)) < 0.3 / number)) % len(classes)
    score = rng.uniform(-0.5, 6, len(row)).astype(np.float16)
    second = (best + 1) % len(classes)
    expected = schema.predictions(len(classes), classes.hash, 2)
    return pack(shard, row, np.stack([best, second], 1), np.stack([score, -np.abs(score) - 1], 1), expected)


def put_fit(run: Run, name: str, streams: dict[str, Output], classes: ClassList) -> Output:
    """A model folder without weights, and a training curve."""
    fit = {"steps": 30, "batch": {"labelled": 8}}
    inputs = {stream: output.digest for stream, output in streams.items()}
    table_ = pa.table({"x": [name]})
    model = made(run, f"{name} fit", "fit", table_, inputs, settings={"fit": fit, "name": name}, model="model")
    put_model(run.store, model.folder, classes)
    lines = [json_text({"step": step, "loss": 2.0 / step}) for step in (10, 20, 30)]
    run.put(f"metrics/{name.replace(' ', '-')}-fit.jsonl", "\n".join(lines).encode())
    return model


def put_evaluation(run: Run, name: str, model: Output, classes: ClassList, number: int) -> Evaluated:
    """The score on validation images: 4 of each class; later models are right more often."""
    truth = np.repeat(np.arange(len(classes), dtype=np.int32), 4)
    rng = np.random.default_rng(7)
    wrong = rng.random(len(truth)) < (0.5, 0.25, 0.1)[min(number, 2)]
    predicted = np.where(wrong, (truth + 1) % len(classes), truth).astype(np.int32)
    confidence = rng.uniform(0.5, 1, len(truth)).astype(np.float32)
    place = np.arange(len(truth), dtype=np.int32)
    rows = pa.table(
        [0 * place, place, truth, predicted, confidence, (truth == predicted).astype(np.int32)], schema=ROWS
    )
    score = Classify(classes).measure.score(rows)
    output = made(
        run, f"{name} validation", "evaluate", rows, {"model": model.digest}, reasons={}, rejected=0, **score.to_json()
    )
    return Evaluated(score, output.step)


def save_settings(run: Run, folder: Path, plan: Plan) -> None:
    tree = small_tree(folder, run.store.uri, run="r", generations=plan.generations)
    tree["data"] |= {name: str(folder / f"{name}.parquet") for name in ("labelled", "validation", "pool")}
    tree["data"].pop("test")
    tree |= dict(plan.settings)
    run.save_settings(parse(SelfTrainSettings, tree, "page run"))
