"""Which row of which shard stands at each place of each batch: a pure function of (seed, stream, step).

An epoch is all draws of a set (a row of count c is c draws): the shards in a seeded order, and within a shard the rows
in a seeded order. It is cut into `lanes` of equal length that are walked side by side, and a batch takes the same
number of consecutive draws from each lane. So a batch mixes many shards, a lane needs one shard at a time, every row is
drawn exactly count times an epoch, and any draw is found without the ones before.

Within a shard the shuffling is done chunk by chunk, a chunk being some row groups drawn at random and as large as may
be held in memory; a set that fits into one chunk is shuffled perfectly.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MAX_LANES = 64
HELD_BYTES = 512 * 2**20
"""Encoded bytes that the chunks of all lanes may have together; a rank holds its lanes' share, at most twice when it
looks ahead. Either number changes the order of every stream: raise the revision of `fit` with it.
"""

Ints = npt.NDArray[np.int64]


class DrawPositions(NamedTuple):
    """Draws of a batch, row by row: `offset` counts the draws of `shard` in `epoch`."""

    epoch: Ints
    shard: Ints
    offset: Ints


@dataclass(frozen=True)
class ShardOrder:
    """A shard's draws in one epoch, row numbers in drawing order. Chunk i ends before draw `ends[i]` and needs the row
    groups `groups[i]`.
    """

    rows: Ints
    ends: Ints
    groups: tuple[tuple[int, ...], ...]


class DrawOrder:
    """The order in which a stream draws from shards of `draws` draws each. Shards without draws never occur."""

    def __init__(self, draws: Sequence[int], batch_size: int, seed: int, stream: str) -> None:
        self.batch_size = batch_size
        self.draws = np.array(draws, dtype=np.int64)
        self.total = int(self.draws.sum())
        if batch_size < 1 or self.total < 1:
            raise ValueError(
                f"stream {stream!r}: a batch of {batch_size} from {self.total} draws; both must be at least 1"
            )
        self._used = np.flatnonzero(self.draws)
        self.lanes = max(n for n in range(1, min(MAX_LANES, len(self._used), batch_size) + 1) if batch_size % n == 0)
        self._entropy = (seed % 2**64, zlib.crc32(stream.encode()))
        self._shard_order = (-1, np.empty(0, np.int64), np.empty(0, np.int64))

    def seeds(self, step: int) -> npt.NDArray[np.uint64]:
        """One seed an image of the global batch (B,): what its views are drawn from."""
        state = np.random.SeedSequence([*self._entropy, 0, step]).generate_state(self.batch_size, np.uint64)
        return state.astype(np.uint64, copy=False)

    def places(self, step: int, start: int, stop: int) -> DrawPositions:
        """The draws at rows start..stop of the global batch of `step`."""
        share = self.batch_size // self.lanes
        lane, within = np.divmod(np.arange(start, stop), share)
        short, longer = divmod(self.total, self.lanes)  # the first `longer` lanes are one draw longer
        epoch, along = np.divmod(step * share + within, short + (lane < longer))
        position = lane * short + np.minimum(lane, longer) + along
        shard, offset = np.empty_like(position), np.empty_like(position)
        for each in np.unique(epoch):
            here = epoch == each
            order, ends = self._shards(int(each))
            which = np.searchsorted(ends, position[here], side="right")
            shard[here] = order[which]
            offset[here] = position[here] - (ends[which] - self.draws[order[which]])
        return DrawPositions(epoch, shard, offset)

    def walk(
        self, epoch: int, shard: int, counts: npt.NDArray[np.integer], groups: Sequence[int], num_bytes: int
    ) -> ShardOrder:
        """The draws of one shard in one epoch. `counts`: draws of each row; `groups`: rows of each row group;
        `num_bytes`: the shard's size.
        """
        rng = self._rng(1, epoch, shard)
        bounds = np.concatenate([[0], np.cumsum(groups)])
        together = max(1, HELD_BYTES // self.lanes * len(groups) // max(1, num_bytes))  # row groups a chunk
        order = rng.permutation(len(groups))
        chunks = [tuple(sorted(order[at : at + together].tolist())) for at in range(0, len(order), together)]
        rows = []
        for chunk in chunks:
            inside = np.concatenate([np.arange(bounds[group], bounds[group + 1]) for group in chunk])
            rows.append(rng.permutation(np.repeat(inside, counts[inside])))
        return ShardOrder(np.concatenate(rows), np.cumsum([len(part) for part in rows]), tuple(chunks))

    def straight_walk(self, epoch: int, shard: int, groups: Sequence[int]) -> ShardOrder:
        """The draws of a shard whose row groups are read in the order of the file, each a chunk, every row once."""
        rng, ends = self._rng(1, epoch, shard), np.cumsum(groups)
        rows = [end - size + rng.permutation(size) for end, size in zip(ends, groups, strict=True)]
        return ShardOrder(np.concatenate(rows), ends, tuple((group,) for group in range(len(groups))))

    def _shards(self, epoch: int) -> tuple[Ints, Ints]:
        """The shards of an epoch in order, and the draw before which each ends."""
        cached = self._shard_order  # read once: another thread may replace it
        if cached[0] != epoch:
            order = self._used[self._rng(2, epoch).permutation(len(self._used))]
            self._shard_order = cached = (epoch, order, np.cumsum(self.draws[order]))
        return cached[1], cached[2]

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([*self._entropy, *purpose])
