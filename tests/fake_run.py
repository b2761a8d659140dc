"""A finished run of two generations written straight into a store, without a cluster: for the jobs that only read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.ground import storage
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store, read_tables
from engine.images.collection import Collection, open_collection
from engine.labels.classes import ClassList
from engine.select.scores import pack
from engine.select.select import Selector
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.select import SelectSettings
from engine.tables import schema
from tests.images import making

CLASSES = ClassList(("cat", "dog"))
SELECT = SelectSettings(threshold=0.8, per_class=2)


@dataclass(frozen=True)
class Image:
    """What a teacher sees: the best class's log-odds, for cat when positive and for dog when negative."""

    key: str
    cat: float


def half(value: float) -> np.ndarray:
    return np.array([[abs(value), -abs(value)]], np.float16)


@dataclass
class FakeRun:
    """The store's folder and the outputs by label."""

    store: Store
    pool: Collection
    steps: dict[str, Output]


def made(run: Run, label: str, verb: str, table: pa.Table, inputs: dict[str, str], **rest: Any) -> Output:
    """A committed step of one part."""
    settings = rest.pop("settings", {"label": label})
    quarantine = rest.pop("quarantine", None)

    def work(step: Step) -> Output:
        if quarantine is not None:
            step.put_sidecar("quarantine", 0, quarantine)
        return step.commit([step.put_part(0, table)], rest, 0.0)

    return run.find_or_run_step(label, StepRecord(verb, 1, settings, inputs), work)


def fit(run: Run, label: str, streams: dict[str, Output]) -> Output:
    """A model folder that only tells its classes."""
    model = made(run, label, "fit", pa.table({"x": [label]}), {n: o.digest for n, o in streams.items()}, model="model")
    put_model(run.store, model.folder, CLASSES)
    return model


def put_model(store: Store, folder: str, classes: ClassList) -> None:
    """A model's config.json below the fit step in `folder`: what tells its classes, without weights."""
    pretrained = {
        "input_size": [3, 8, 8],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    config = {
        "architecture": "resnet18",
        "num_classes": len(classes),
        "label_names": list(classes.names),
        "pretrained_cfg": pretrained,
    }
    storage.put(store.fs, f"{folder}/model/config.json", json.dumps(config).encode())


def fake_run(folder: Path, scores: list[list[Image]]) -> FakeRun:
    """A run whose i-th teacher sees the pool's images as `scores[i]`; the last image of the pool is quarantined."""
    keys = [image.key for image in scores[0]]
    images = making.folder(folder / "pool", [*keys, "zz-broken.jpg"])
    labelled_folder = making.folder(folder / "labelled", ["cat/1.jpg", "dog/1.jpg"], first=100)
    run = Run(Store(str(folder / "store")), "r", ClusterSettings())
    pool = open_collection(run, "pool", str(images), SourceSettings())
    labelled = open_collection(run, "labelled", str(labelled_folder), SourceSettings(), labelled=True)
    steps: dict[str, Output] = {}
    steps["gather labelled"] = made(
        run, "gather labelled", "gather", pa.table({"x": [0]}), {"images": labelled.digest, "classes": CLASSES.hash}
    )
    teacher = steps["teacher fit"] = fit(run, "teacher fit", {"labelled": steps["gather labelled"]})
    aside = pa.table([[0], [len(keys)], ["zz-broken.jpg"], ["truncated"]], schema=schema.QUARANTINE)
    for number, seen in enumerate(scores, 1):
        name = f"generation {number}"
        order = {address: key for key in keys for address in pool.manifest.find(key)}
        rows = [next(image.cat for image in seen if image.key == order[0, row]) for row in range(len(keys))]
        table = pack(
            np.zeros(len(keys), np.int32),
            np.arange(len(keys), dtype=np.int32),
            np.array([[0, 1] if cat > 0 else [1, 0] for cat in rows]),
            np.concatenate([half(cat) for cat in rows]),
            schema.predictions(2, CLASSES.hash, 2),
        )
        inputs = {"model": teacher.digest, "images": pool.digest, "held": "none"}
        label = f"{name} predict"
        predictions = steps[label] = made(
            run, label, "predict", table, inputs, quarantine=aside, model=teacher.step, images=len(keys)
        )
        selector = Selector(SELECT, CLASSES)
        selector.update(table)
        chosen, report = selector.finish()
        inputs = {"predictions": predictions.digest, "classes": CLASSES.hash}
        label = f"{name} select"
        pseudo = steps[label] = made(
            run,
            label,
            "select",
            chosen,
            inputs,
            settings=SELECT.model_dump(),
            selected=chosen.num_rows,
            predictions=predictions.step,
            report=report.as_dict(),
        )
        inputs = {"pseudo": pseudo.digest, "images": pool.digest, "classes": CLASSES.hash}
        gathered = steps[f"{name} gather"] = made(run, f"{name} gather", "gather", pa.table({"x": [number]}), inputs)
        streams = {"labelled": steps["gather labelled"], "pseudo": gathered}
        teacher = steps[f"{name} fit"] = fit(run, f"{name} fit", streams)
    return FakeRun(run.store, pool, steps)


def table_of(run: FakeRun, label: str) -> pa.Table:
    return pa.concat_tables(table for _, table in read_tables(run.steps[label], run.store.fs))
