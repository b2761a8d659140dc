"""Mean and standard deviation of every feature over a cache, in one pass over its parts: no label has a part in it."""

import time
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.embed.shard_embedder import features_of
from engine.ground.fanout import FanOut, TaskResources, chunks, task_slots
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, read_part, read_tables

VERB, REVISION = "feature_statistics", 1
FEW_ROWS = 1 << 16
"""Images whose features the driver itself reads; more are read on workers."""

Floats = npt.NDArray[np.float64]


@dataclass
class Moments:
    """Number of images, and the sums and sums of squares float64 (D,) of their features; D is 0 until one was seen."""

    count: int = 0
    total: Floats = field(default_factory=lambda: np.zeros(0))
    squares: Floats = field(default_factory=lambda: np.zeros(0))

    def update(self, features: npt.NDArray[np.float16]) -> None:
        """Count features (n, D)."""
        values = features.astype(np.float64)
        self.merge(Moments(len(values), values.sum(axis=0), np.square(values).sum(axis=0)))

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""
        if other.count:
            self.total = other.total + (self.total if self.count else 0)
            self.squares = other.squares + (self.squares if self.count else 0)
            self.count += other.count


@dataclass(frozen=True)
class Scaling:
    """What makes features comparable: z = (x - mean) / scale, both float32 (D,), has mean 0, equal variance per feature and length 1 on average."""

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def __call__(self, features: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
        """z float32 (N, D)."""
        z: npt.NDArray[np.float32] = (features.astype(np.float32) - self.mean) / self.scale
        return z


def find_scaling(run: Run, title: str, features: Output) -> Output:
    """Mean and standard deviation of a cache as a step: one part with the columns `mean` and `std`, float64, a row per feature."""

    def work(step: Step) -> Output:
        started = time.time()
        parts = features.parts(run.store.fs)
        if sum(part.rows for part in parts) <= FEW_ROWS:
            seen = sum_up(parts, run.store, features)
        else:
            groups = chunks(parts, 2 * task_slots(TaskResources()))
            seen = FanOut(run, title, step).merge(sum_up, groups, run.store, features)
        if not seen.count:
            raise ValueError(f"{features.step}: no image has features")
        mean = seen.total / seen.count
        std = np.sqrt(np.maximum(seen.squares / seen.count - mean**2, 0))
        return step.commit([step.put_part(0, pa.table({"mean": mean, "std": std}))], {"images": seen.count}, started)

    return run.find_or_run_step(title, StepRecord(VERB, REVISION, {}, {"features": features.digest}), work)


def sum_up(parts: list[Part], store: Store, features: Output) -> Moments:
    """The moments of some parts of a cache."""
    seen = Moments()
    for part in parts:
        seen.update(features_of(read_part(features, store.fs, part, ["features"])))
    return seen


def read_scaling(statistics: Output, store: Store) -> Scaling:
    """The scaling of `find_scaling`. A feature that is the same for all images counts for nothing."""
    _, table = next(read_tables(statistics, store.fs))
    mean, std = (table[name].to_numpy() for name in ("mean", "std"))
    moving = std > 1e-6 * max(1e-30, float(std.max()))
    scale = np.where(moving, std, np.inf) * np.sqrt(max(1, int(moving.sum())))
    return Scaling(mean.astype(np.float32), scale.astype(np.float32))
