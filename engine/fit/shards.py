"""Reading and decoding training shards (schema.training), a few row groups at a time."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from engine.fit.order import DrawOrder, ShardOrder
from engine.gather.training_set import TrainingSet, TrainingShard
from engine.ground import storage
from engine.images.decode import decode, decode_mask
from engine.images.errors import RejectedImageError
from engine.labels.targets import Targets, padded
from engine.tables import schema

Decode = Callable[[pa.Buffer, int], Tensor]
"""(encoded image, size S) -> uint8 (channels, S, S)."""


@dataclass(frozen=True)
class ShardIndex:
    """What the order needs to know of a shard: draws of each row, and rows of each row group."""

    counts: npt.NDArray[np.int32]
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Row groups of one shard as read: images still encoded, targets already rectangular."""

    shard: int
    rows: npt.NDArray[np.int64]  # (n,) ascending row numbers in the shard
    images: pa.ChunkedArray
    masks: pa.ChunkedArray | None
    classes: npt.NDArray[np.int64]  # (n, P), padded with -1
    weights: npt.NDArray[np.float32]  # (n, P)


class ShardReader(Protocol):
    """Shards from which a stream reads chunk by chunk."""

    def index(self, shard: int) -> ShardIndex: ...

    def walk(self, order: DrawOrder, epoch: int, shard: int, index: ShardIndex) -> ShardOrder: ...

    def read(self, shard: int, groups: Sequence[int], index: ShardIndex) -> Rows: ...


class Shards:
    """The shards of a training set, opened one by one and checked against the set's classes."""

    def __init__(self, training_set: TrainingSet) -> None:
        self.set = training_set
        self._fs, self._root = storage.resolve(training_set.uri)

    def __getitem__(self, shard: int) -> TrainingShard:
        return self.set.shards[shard]

    def where(self, shard: int) -> str:
        """A shard's name in messages."""
        return storage.join(self.set.uri, self[shard].path)

    def index(self, shard: int) -> ShardIndex:
        """Raises ValueError when the file is not the one that the set describes."""
        with self._open(shard) as file:
            counts = file.read(["count"])["count"].to_numpy()
            groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        found, expected = (len(counts), int(counts.sum())), (self[shard].rows, self[shard].draws)
        if found != expected:
            raise ValueError(
                f"{self.where(shard)}: has {found} rows and draws, the training set says {expected}: gather it again"
            )
        return ShardIndex(counts, groups)

    def walk(self, order: DrawOrder, epoch: int, shard: int, index: ShardIndex) -> ShardOrder:
        """The order of its draws in one epoch."""
        return order.walk(epoch, shard, index.counts, index.groups, self[shard].bytes)

    def read(self, shard: int, groups: Sequence[int], index: ShardIndex) -> Rows:
        """The rows of some row groups, which are given in ascending order."""
        bounds = np.concatenate([[0], np.cumsum(index.groups)])
        with self._open(shard) as file:
            columns = [name for name in file.schema_arrow.names if name not in ("key", "count")]
            table = file.read_row_groups(list(groups), columns)
        targets = Targets(table["classes"].combine_chunks(), table["weights"].combine_chunks())
        classes, weights = padded(targets)
        lengths = np.asarray(targets.classes.value_lengths())
        classes[np.arange(classes.shape[1]) >= lengths[:, None]] = -1
        rows = np.concatenate([np.arange(bounds[group], bounds[group + 1]) for group in groups])
        masks = table["mask"] if "mask" in table.column_names else None
        return Rows(shard, rows, table["image"], masks, classes, weights)

    def has_masks(self) -> bool:
        """Whether the set's images have masks, by its first shard."""
        with self._open(0) as file:
            return "mask" in file.schema_arrow.names

    def _open(self, shard: int) -> pq.ParquetFile:
        file = pq.ParquetFile(f"{self._root}/{self[shard].path}", filesystem=self._fs, pre_buffer=True)
        expected = schema.training(self.set.num_classes, self.set.classes_hash, mask="mask" in file.schema_arrow.names)
        schema.check(file.schema_arrow.empty_table(), expected, self.where(shard))
        return file


class Decoder:
    """Decodes images of one size on a pool of threads."""

    def __init__(
        self, shards: Shards, size: int, pool: Executor, image: Decode = decode, mask: Decode = decode_mask
    ) -> None:
        self.size = size
        self._shards, self._pool, self._image, self._mask = shards, pool, image, mask

    def into(
        self, rows: Rows, picks: npt.NDArray[np.int64], images: Tensor, masks: Tensor | None, at: npt.NDArray[np.int64]
    ) -> list[Any]:
        """Start decoding entries `picks` of `rows` to places `at` of `images` uint8 (b, 3, S, S) and `masks`; returns
        the tasks to wait for.
        """

        def work(part: npt.NDArray[np.int64]) -> None:
            for i in part:
                pick, place = int(picks[i]), int(at[i])
                try:
                    images[place] = self.pixels(rows, pick)
                    if masks is not None and rows.masks is not None:
                        masks[place] = self._mask(rows.masks[pick].as_buffer(), self.size)
                except RejectedImageError as bad:
                    where, row = self._shards.where(rows.shard), int(rows.rows[pick])
                    raise RuntimeError(
                        f"{where}: row {row} cannot be decoded, though gather could: {bad}. Is the file damaged?"
                    ) from bad

        return [
            self._pool.submit(work, part) for part in np.array_split(np.arange(len(picks)), -(-len(picks) // SLICE))
        ]

    def pixels(self, rows: Rows, pick: int) -> Tensor:
        """Entry `pick` of `rows`, uint8 (3, S, S). Raises BadImage."""
        return self._image(rows.images[pick].as_buffer(), self.size)

    def empty(self, count: int, masks: bool) -> tuple[Tensor, Tensor | None]:
        """Room for `count` images and, when wanted, masks."""
        side = self.size
        images = torch.empty(count, 3, side, side, dtype=torch.uint8)
        return images, torch.empty(count, 1, side, side, dtype=torch.uint8) if masks else None


SLICE = 8
"""Images a task decodes: few enough to share a batch out evenly, enough to make the hand-over cheap."""


def threads() -> int:
    """Threads to decode with: the cores this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
