"""Reading and decoding training shards (schema.training), a few row groups at a time."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from engine.fit.order import DrawOrder, ShardOrder
from engine.gather.training_set import TrainingSet, TrainingShard
from engine.ground import storage
from engine.images.crops import RandomCrop
from engine.images.decode import (
    Frame,
    Pixels,
    decode_array,
    decode_full_size,
    decode_mask,
    decode_mask_full_size,
    decode_reduced,
)
from engine.images.errors import RejectedImageError
from engine.labels.targets import Targets, padded
from engine.tables import schema


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


@dataclass(frozen=True)
class DecodeBuffer:
    """Room for the decoded images of a batch: one tensor uint8 (b, 3, S, S) per crop (one without crops), masks uint8 (b, 1, S, S) of the first,
    and the random numbers (b, n) of each crop."""

    images: tuple[Tensor, ...]
    masks: Tensor | None
    draws: tuple[npt.NDArray[np.float64], ...] = ()


class Decoder:
    """Decodes images on a pool of threads: in one frame, or, with `crops`, whole pictures that each crop is taken from."""

    def __init__(self, shards: Shards, frame: Frame, pool: Executor, crops: Sequence[RandomCrop] = ()) -> None:
        self.size, self.frame, self.crops = frame.img_size, frame, tuple(crops)
        self.short_side = max((crop.short_side for crop in self.crops), default=self.size)
        self._shards, self._pool = shards, pool

    def buffer(self, count: int, masks: bool, seeds: npt.NDArray[np.uint64] | None = None) -> DecodeBuffer:
        """Room for `count` images and, if `masks`, their masks; `seeds` uint64 (count,) of the images, needed with crops."""
        side = self.size
        images = tuple(torch.empty(count, 3, side, side, dtype=torch.uint8) for _ in self.crops or (None,))
        draws = () if seeds is None else tuple(crop.draws(seeds) for crop in self.crops)
        return DecodeBuffer(images, torch.empty(count, 1, side, side, dtype=torch.uint8) if masks else None, draws)

    def into(
        self, rows: Rows, picks: npt.NDArray[np.int64], buffer: DecodeBuffer, at: npt.NDArray[np.int64]
    ) -> list[Future[None]]:
        """Start decoding entries `picks` of `rows` to places `at` of `buffer`; returns the tasks to wait for."""

        def work(part: npt.NDArray[np.int64]) -> None:
            for i in part:
                pick = int(picks[i])
                self.put(self.picture(rows, pick), self.mask(rows, pick), buffer, int(at[i]))

        return self.in_slices(work, len(picks))

    def in_slices(self, work: Callable[[npt.NDArray[np.int64]], None], count: int) -> list[Future[None]]:
        """Start `work` on slices of range(count)."""
        return [self._pool.submit(work, part) for part in np.array_split(np.arange(count), -(-count // SLICE))]

    def put(self, picture: Pixels, mask: Pixels | None, buffer: DecodeBuffer, place: int) -> None:
        """Write a decoded picture, or its crops, to `place` of the buffer."""
        if not self.crops:
            buffer.images[0][place] = torch.from_numpy(picture).permute(2, 0, 1)
            if buffer.masks is not None and mask is not None:
                buffer.masks[place] = torch.from_numpy(mask)[None]
            return
        for crop, images, draws in zip(self.crops, buffer.images, buffer.draws, strict=True):
            images[place] = crop.image(picture, draws[place])
        if buffer.masks is not None and mask is not None:
            buffer.masks[place] = self.crops[0].mask(mask, buffer.draws[0][place])

    def picture(self, rows: Rows, pick: int) -> Pixels:
        """Entry `pick` of `rows`, uint8 (h, w, 3). Raises RuntimeError for an image that gather could decode and this cannot."""
        return self._decoded(rows, pick, lambda: self.decode(rows, pick))

    def mask(self, rows: Rows, pick: int) -> Pixels | None:
        """The mask of entry `pick`, uint8 (h, w); None where the set has none."""
        masks = rows.masks
        if masks is None:
            return None
        if self.crops:
            return self._decoded(rows, pick, lambda: decode_mask_full_size(masks[pick].as_buffer()))
        return self._decoded(rows, pick, lambda: decode_mask(masks[pick].as_buffer(), self.frame)[0].numpy())

    def decode(self, rows: Rows, pick: int) -> Pixels:
        """As `picture`, but raises RejectedImageError."""
        data = rows.images[pick].as_buffer()
        if not self.crops:
            return decode_array(data, self.frame)
        # a photograph much larger than any crop needs is decoded at a fraction of its size, cached or streamed alike
        reduced = decode_reduced(data, self.short_side)
        return decode_full_size(data) if reduced is None else reduced

    def _decoded(self, rows: Rows, pick: int, decode: Callable[[], Pixels]) -> Pixels:
        try:
            return decode()
        except RejectedImageError as error:
            where, row = self._shards.where(rows.shard), int(rows.rows[pick])
            raise RuntimeError(
                f"{where}: row {row} cannot be decoded, though gather could: {error}. Is the file damaged?"
            ) from error


SLICE = 8
"""Images a task decodes: few enough to share a batch out evenly, enough to make the hand-over cheap."""


def threads() -> int:
    """Threads to decode with: the cores this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
