"""Memory of the driver while millions of picks are gathered, two generations compared, and their labels looked up.

    python -m tests.benchmarks.driver_memory --picks 10000000 --folder /scratch

Prints the most private memory (USS) of the driver in each phase, above that before it. What the workers hold is bounded by a range of shards.
"""

import argparse
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from engine.gather import pipeline
from engine.gather.arrange import arrange
from engine.gather.pipeline import gather
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Output, Step, Store
from engine.images.collection import Collection, open_collection
from engine.images.scope import Scope
from engine.labels import targets
from engine.labels.classes import ClassList
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import _evidence
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.model import ModelSettings
from engine.tables import schema
from engine.tasks.classify import Classify

CLASSES = ClassList(tuple(f"class {i:02d}" for i in range(40)))
ROWS_PER_SHARD = 2048
PART_ROWS = 2_000_000


class Watch:
    """The most private memory of this process while a phase lasts."""

    def __enter__(self) -> "Watch":
        self.process = psutil.Process()
        self.before = self.peak = self.process.memory_full_info().uss
        self.started, self.ended = time.time(), threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def _sample(self) -> None:
        while not self.ended.wait(0.02):
            self.peak = max(self.peak, self.process.memory_full_info().uss)

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def line(self, phase: str) -> str:
        grown = (self.peak - self.before) / 2**20
        return f"{phase:28} {grown:7.0f} MiB above the start, {time.time() - self.started:6.1f} s"


def pool(run: Run, folder: Path, images: int) -> Collection:
    path = folder / "pool.parquet"
    if not path.exists():
        with pq.ParquetWriter(path, pa.schema([("image", pa.binary()), ("label", pa.string())])) as writer:
            for start in range(0, images, 1 << 18):
                index = np.arange(start, min(start + (1 << 18), images))
                names = pa.array(CLASSES.names).take(pa.array(index % len(CLASSES)))
                writer.write_table(pa.table({"image": pa.array([b"x"] * len(index), pa.binary()), "label": names}))
    source = SourceSettings(label_column="label", rows_per_shard=ROWS_PER_SHARD)
    return open_collection(run, "pool", str(path), source)


def selection(run: Run, title: str, images: int, picks: int, seed: int) -> Output:
    """`picks` random images, nine of ten with their true class, sorted by class as a selection is."""

    def work(step: Step) -> Output:
        rng = np.random.default_rng(seed)
        index = rng.choice(images, picks, replace=False)
        classes = np.where(rng.random(picks) < 0.9, index % len(CLASSES), rng.integers(0, len(CLASSES), picks))
        order = np.argsort(classes, kind="stable")
        parts = []
        for unit, start in enumerate(range(0, picks, PART_ROWS)):
            mine = order[start : start + PART_ROWS]
            made = targets.hard(classes[mine], len(CLASSES))
            columns: list[Any] = [index[mine] // ROWS_PER_SHARD, index[mine] % ROWS_PER_SHARD, classes[mine]]
            columns += [np.ones(len(mine), np.float16), np.zeros(len(mine)), np.ones(len(mine)), *made]
            form = schema.pseudo_labels(len(CLASSES), CLASSES.hash)
            arrays = [
                pa.array(c, f.type) if isinstance(c, np.ndarray) else c for c, f in zip(columns, form, strict=True)
            ]
            parts.append(step.put_part(unit, pa.table(arrays, schema=form)))
        return step.commit(parts, {"selected": picks}, 0.0)

    return run.find_or_run_step(title, StepRecord("select", 1, {"seed": seed, "picks": picks}), work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picks", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    images = given.picks * 5 // 4
    run = Run(Store(str(given.folder / "store")), "memory", ClusterSettings())
    collection = pool(run, given.folder, images)
    chosen = [selection(run, f"generation {n} select", images, given.picks, n) for n in (1, 2)]
    pipeline.GROUP_ROWS = 200_000  # the pool's images are one byte each: fewer training shards, the same picks
    task = Classify(CLASSES)
    setup = SimpleNamespace(run=run, collections={"pool": collection}, task=task)
    setup.arranged = lambda label, pseudo, _="pool": arrange(run, f"{label} select", pseudo, collection)
    context = cast("RecipeContext", setup)
    lines = []

    def phase(name: str, work: Callable[[], object]) -> None:
        with Watch() as watch:
            work()
        lines.append(watch.line(name))

    with connect(run.cluster):
        for number, pseudo in enumerate(chosen, 1):
            label = f"generation {number} gather"
            phase(label, partial(gather, run, label, pseudo, Scope(collection), CLASSES))
        learned = [
            Generation(
                f"generation {n}",
                ModelSettings(model="resnet18"),
                one,
                [one],
                pseudo={"step": one.step, "on": "pool", "kept": given.picks},
            )
            for n, one in enumerate(chosen, 1)
        ]
        phase("churn", lambda: _evidence(context, *learned))
        phase("quality", lambda: RecipeContext.pseudo_quality(context, "generation 1 gather", chosen[0]))
    print(f"{given.picks:,} picks of {images:,} images", *lines, sep="\n")


if __name__ == "__main__":
    main()
