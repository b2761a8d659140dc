"""Training on a collection as it is: nothing is labelled, gathered or stored first, and the stream never ends.

The pool's own shards are read block by block, a block being consecutive rows of one shard, as large as may be held in
memory. Shards come in a seeded order, blocks of a shard in the order of its file, so that a row group is decoded once
an epoch, and the rows of a block in a seeded order. Mixing comes from the lanes (engine.fit.order), which stand in some
64 shards at once. A draw is a pure function of (seed, stream, step) and of the images themselves: where one cannot be
used, or is in a labelled or evaluation set, another image of its block is drawn instead.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.fit import order as orders
from engine.fit.order import DrawOrder, ShardOrder
from engine.fit.shards import Decoder, Rows, ShardIndex
from engine.fit.streams import Stream, StreamedStream, StreamSpec
from engine.ground.budget import RejectBudget, RejectLimit
from engine.images.decode import Pixels, content_hash
from engine.images.errors import RejectedImageError
from engine.images.manifest import Manifest
from engine.images.overlap import ExclusionSet

BLOCK_ROWS = 1024
"""Rows of a block at most. It changes the order of raw streams: raise the revision of `fit` with it."""


@dataclass(frozen=True)
class PoolSource:
    """Every image of a collection without those in `exclusions`. Pickles small, as its manifest does."""

    manifest: Manifest
    exclusions: ExclusionSet | None = None
    max_rejected_percent: float = 1.0
    """Share of the images drawn that may be broken, without the excluded ones; decides nothing that is drawn."""

    @property
    def uri(self) -> str:
        return self.manifest.uri

    @property
    def rows(self) -> int:
        return self.manifest.num_rows

    @property
    def draws(self) -> int:
        return self.manifest.num_rows

    @property
    def digest(self) -> str:
        """All that decides what is drawn."""
        return self.manifest.digest if self.exclusions is None else f"{self.manifest.digest}-{self.exclusions.digest}"

    @property
    def target_kind(self) -> None:
        """Images of a pool have no targets."""

    def open(self, spec: StreamSpec) -> Stream:
        """The stream `spec` of the pool. Raises ValueError as `StreamSpec.check`."""
        spec.check(self.draws, self.uri)
        order = spec.order(self.manifest.rows.tolist())
        shards = PoolShards(self, order.lanes)
        decoder = PoolDecoder(shards, spec.frame, spec.threads(), spec.crops)
        return StreamedStream(shards, order, spec.part, decoder, False)


class PoolShards:
    """The shards of a raw set, read by blocks of `block_rows` rows each."""

    def __init__(self, raw: PoolSource, lanes: int) -> None:
        self.raw = raw
        sizes = np.maximum(1, raw.manifest.shards["bytes"].to_numpy())
        rows = raw.manifest.rows.astype(np.int64)
        self.block_rows = np.clip(orders.HELD_BYTES // lanes * rows // sizes, 1, BLOCK_ROWS)
        self._lanes = lanes
        self._readers: OrderedDict[tuple[int, int], Manifest] = OrderedDict()
        self._shelving = Lock()  # an OrderedDict breaks when threads change it at once

    def index(self, shard: int) -> ShardIndex:
        """Every row once, blocks as row groups."""
        rows, block = int(self.raw.manifest.rows[shard]), int(self.block_rows[shard])
        groups = tuple(min(block, rows - start) for start in range(0, rows, block))
        return ShardIndex(np.ones(rows, np.int32), groups)

    def walk(self, order: DrawOrder, epoch: int, shard: int, index: ShardIndex) -> ShardOrder:
        """Blocks as they stand in the file, the rows of each shuffled."""
        return order.straight_walk(epoch, shard, index.groups)

    def read(self, shard: int, groups: Sequence[int], index: ShardIndex) -> Rows:
        """One block, without targets. Excluded images are null, as those that cannot be had."""
        (block,) = groups
        start = int(np.sum(index.groups[:block], dtype=np.int64))
        rows = np.arange(start, start + index.groups[block])
        with self._shelving:
            reader = self._readers.pop((shard, block), None) or replace(self.raw.manifest)
        images = pa.chunked_array([self._allowed(batch) for batch in reader.read(shard, rows)], pa.binary())
        with self._shelving:
            self._readers[shard, block + 1] = reader  # it is where that block begins
            while len(self._readers) > 2 * self._lanes:
                self._readers.popitem(last=False)
        return Rows(shard, rows, images, None, np.zeros((len(rows), 0), np.int64), np.zeros((len(rows), 0), np.float32))

    def _allowed(self, batch: pa.RecordBatch) -> pa.Array:
        """The images of a batch, null where one is excluded."""
        images = batch.column("image")
        if self.raw.exclusions is None:
            return images
        keys = batch.column("key").to_pylist() if self.raw.manifest.has_keys else [None] * len(images)
        out = [
            image.is_valid and self.raw.exclusions.reason(key, content_hash(image.as_buffer())) is not None
            for key, image in zip(keys, images, strict=True)
        ]
        return pc.if_else(pa.array(out), pa.scalar(None, images.type), images)

    def stand_ins(self, rows: Rows) -> Iterator[Rows]:
        """Blocks to draw from when `rows` holds no usable image: the block of that number in the shards that follow,
        then the blocks that follow.
        """
        filled = np.flatnonzero(self.raw.manifest.rows)
        first = int(np.searchsorted(filled, rows.shard))
        blocks = [self.index(int(shard)) for shard in filled]
        number = int(rows.rows[0]) // int(self.block_rows[rows.shard])
        for shift in range(1, len(filled) * max(len(index.groups) for index in blocks)):
            further, along = divmod(shift, len(filled))
            at = (first + along) % len(filled)
            yield self.read(int(filled[at]), [(number + further) % len(blocks[at].groups)], blocks[at])


class PoolDecoder(Decoder):
    """Decodes the image that was drawn, or the one drawn instead, until too many are broken.

    What is drawn again in a later epoch counts again; what a resumed fit drew before its stop does not.
    """

    def __init__(self, shards: PoolShards, *rest: object) -> None:
        super().__init__(shards, *rest)  # type: ignore[arg-type]
        self._raw = shards
        self._counting = Lock()
        remedy = f"They were drawn from {shards.raw.uri}. Fix them, leave them out or raise the limit."
        self._budget = RejectBudget(RejectLimit(shards.raw.max_rejected_percent, "pool stream", remedy))

    def picture(self, rows: Rows, pick: int) -> Pixels:
        if (found := self._drawn_image(rows, pick)) is not None:
            return found
        address = [rows.shard, int(rows.rows[pick])]
        if (found := self._first_usable(rows, _shuffled(len(rows.rows), address))) is not None:
            return found
        for others in self._raw.stand_ins(rows):
            if (found := self._first_usable(others, _shuffled(len(others.rows), address))) is not None:
                return found
        raise ValueError(
            f"{self._raw.raw.uri}: no image can be used to train on: all are broken, or stand in a labelled or evaluation set"
        )

    def _drawn_image(self, rows: Rows, pick: int) -> Pixels | None:
        """The image itself; None where there is none, or it is excluded or broken. Raises TooManyRejectsError."""
        if not rows.images[pick].is_valid:
            return None
        found, reason = None, None
        try:
            found = self.decode(rows, pick)
        except RejectedImageError as bad:
            reason = bad.reason
        with self._counting:
            self._budget.see(reason)
        return found

    def _first_usable(self, rows: Rows, picks: Sequence[int] | npt.NDArray[np.int64]) -> Pixels | None:
        for pick in picks:
            if rows.images[int(pick)].is_valid:
                try:
                    return self.decode(rows, int(pick))
                except RejectedImageError:
                    continue
        return None


def _shuffled(length: int, address: list[int]) -> npt.NDArray[np.int64]:
    """Another order for every address, so that no single image stands in for all."""
    return np.random.default_rng(address).permutation(length)
