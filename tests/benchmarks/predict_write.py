"""What a prediction weighs, and how fast predictions become committed parts: packed, encoded, checksummed, put; and counted into a step's histogram.

One process, one thread. CPU seconds are what to read on a shared machine; wall seconds have the disk in them.

    python -m tests.benchmarks.predict_write --classes 1000 --rows 2048 --shards 200
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from engine.ground.record import StepRecord
from engine.ground.steps import Store
from engine.labels.classes import ClassList
from engine.predict.pipeline import PARQUET
from engine.select.histogram import Histogram
from engine.select.scores import classes_of, pack, scores_of
from engine.tables import schema
from engine.tasks.answers import top_log_odds

WARM_UP = 5
"""Shards before the clock starts: Arrow imports what it needs when it is first used."""


def answers(rows: int, classes: int, top_p: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes and scores of a teacher that is sure of some images and not of others."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator)
    best = torch.randint(0, classes, (rows, 1), generator=generator)
    logits.scatter_add_(1, best, 12 * torch.rand(rows, 1, generator=generator))
    found, odds = top_log_odds(logits, top_p)
    return found.numpy(), odds.numpy().astype(np.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=2048, help="of a shard")
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--top-p", type=int, default=8)
    arguments = parser.parse_args()
    classes = ClassList(tuple(f"class {number}" for number in range(arguments.classes)))
    predictions = schema.predictions(arguments.classes, classes.hash, arguments.top_p)
    made = [answers(arguments.rows, arguments.classes, arguments.top_p, seed) for seed in range(8)]
    spent: dict[str, list[float]] = {"pack": [], "put": [], "histogram": []}
    size = 0
    histogram = Histogram(arguments.classes)
    with tempfile.TemporaryDirectory() as folder:
        step = Store(str(Path(folder) / "store")).open().step(StepRecord("predict", 0))
        began = time.perf_counter()
        for shard in range(-WARM_UP, arguments.shards):
            if shard == 0:
                spent, size, began = {name: [] for name in spent}, 0, time.perf_counter()
            marks = [time.process_time()]
            address = np.full(arguments.rows, max(0, shard), np.int32), np.arange(arguments.rows, dtype=np.int32)
            table = pack(*address, *made[shard % len(made)], predictions)
            marks.append(time.process_time())
            size += step.put_part(max(0, shard), table, {"rejected": 0}, {"infer": 1.0}, **PARQUET).bytes
            marks.append(time.process_time())
            histogram.update(classes_of(table)[:, 0], scores_of(table)[:, 0])
            marks.append(time.process_time())
            for name, interval in zip(spent, np.diff(marks), strict=True):
                spent[name].append(float(interval))
        wall = time.perf_counter() - began
    rows = arguments.shards * arguments.rows
    print(f"{rows} images, {arguments.classes} classes, top {arguments.top_p}, shards of {arguments.rows}")
    print(f"{size / rows:.1f} bytes an image")
    best = dict.fromkeys(spent, 0.0)
    for name, seconds in spent.items():
        median, best[name] = (float(np.quantile(seconds, q)) / arguments.rows for q in (0.5, 0.05))
        print(
            f"{name}: {1e9 * median:.0f} ns of CPU an image, median of shards; {1e9 * best[name]:.0f} in the best twentieth"
        )
    print(
        f"pack and put: {1e-6 / (best['pack'] + best['put']):.2f} M images/s/core; with the disk's waits {rows / wall / 1e6:.2f} M/s"
    )


if __name__ == "__main__":
    main()
