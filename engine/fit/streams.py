"""Where batches come from: a stream yields one rank's batch of a step as a pure function of (seed, stream name, step).

The global batch is the same for any number of workers that divides it; rank r of W gets its rows [r·B/W, (r+1)·B/W).
Position in the data is the step number, so resuming needs nothing else. A set that fits `cache_bytes` is decoded once
and kept; a larger one is read chunk by chunk and decoded batch by batch, in flat memory. Both draw in the same order
(engine.fit.order), so which one it is changes no result.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.fit.batch import Batch
from engine.fit.order import DrawOrder, DrawPositions, ShardOrder
from engine.fit.pool_stream import PoolDecoder, PoolShards, PoolSource
from engine.fit.shards import Decode, Decoder, Rows, ShardIndex, ShardReader, Shards, threads
from engine.gather.training_set import TrainingSet
from engine.images.decode import decode, decode_mask
from engine.settings.fit import NoiseSettings

AHEAD = 4
"""Steps that a streamed set looks ahead for the chunks to read."""


class Stream(Protocol):
    """One named source of batches, as one rank sees it."""

    def batch(self, step: int) -> Batch: ...


def decode_size(img_size: int, noise: NoiseSettings | None) -> int:
    """Side at which images are decoded: the model's, and 15 % more where random crops need a surplus."""
    return round(img_size * 1.15) if noise is not None and noise.scale is not None else img_size


def open_stream(
    name: str,
    training_set: TrainingSet | PoolSource,
    *,
    batch_size: int,
    seed: int,
    size: int,
    cache_bytes: int,
    rank: int = 0,
    world: int = 1,
    decode_image: Decode = decode,
    decode_target: Decode = decode_mask,
) -> Stream:
    """The stream `name` of a training set: `batch_size` images a step over all workers, of `size` pixels a side.

    Raises ValueError when the workers cannot share the batch evenly or the set is empty.
    """
    if batch_size % world:
        raise ValueError(
            f"stream {name!r}: {world} workers cannot share {batch_size} images a step evenly; "
            f"set batch.{name} to a multiple of {world}"
        )
    if training_set.draws == 0:
        raise ValueError(f"stream {name!r} is empty: {training_set.uri} holds no image")
    part = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
    pool = ThreadPoolExecutor(threads(), thread_name_prefix=f"stream-{name}")
    if isinstance(training_set, PoolSource):
        order = DrawOrder(training_set.manifest.rows.tolist(), batch_size, seed, name)
        raw = PoolShards(training_set, order.lanes)
        return StreamedStream(raw, order, part, PoolDecoder(raw, size, pool, decode_image), False, pool)
    shards = Shards(training_set)
    order = DrawOrder([shard.draws for shard in training_set.shards], batch_size, seed, name)
    decoder = Decoder(shards, size, pool, decode_image, decode_target)
    masks = shards.has_masks()
    if training_set.rows * (4 if masks else 3) * size * size <= cache_bytes:
        with pool:  # not needed once everything is decoded
            return CachedStream(shards, order, part, decoder, masks)
    return StreamedStream(shards, order, part, decoder, masks, pool)


class CachedStream:
    """All images of a set decoded in memory, uint8. Every rank keeps them all: in time each of its lanes passes everywhere."""

    def __init__(self, shards: Shards, order: DrawOrder, part: slice, decoder: Decoder, masks: bool) -> None:
        self._order, self._part = order, part
        self._shards = shards
        self._indices = [shards.index(shard) for shard in range(len(shards.set.shards))]
        self._first = np.concatenate([[0], np.cumsum([shard.rows for shard in shards.set.shards])])
        self._walks: OrderedDict[tuple[int, int], ShardOrder] = OrderedDict()
        self._images, self._masks = decoder.empty(shards.set.rows, masks)
        targets = []
        for shard, index in enumerate(self._indices):
            if not len(index.counts):
                continue
            rows = shards.read(shard, range(len(index.groups)), index)
            everything = np.arange(len(rows.rows))
            _finish(decoder.into(rows, everything, self._images, self._masks, self._first[shard] + everything))
            targets.append((rows.classes, rows.weights))
        self._classes, self._weights = _stack(targets)

    def batch(self, step: int) -> Batch:
        places = self._order.places(step, self._part.start, self._part.stop)
        where = np.empty(len(places.shard), np.int64)
        for epoch, shard, here in _by_shard(places):
            where[here] = self._first[shard] + self._walk(epoch, shard).rows[places.offset[here]]
        index = torch.from_numpy(where)
        return Batch(
            self._images[index],
            self._classes[index],
            self._weights[index],
            self._order.seeds(step)[self._part],
            None if self._masks is None else self._masks[index],
        )

    def _walk(self, epoch: int, shard: int) -> ShardOrder:
        """As many are kept as lanes stand in or enter; the oldest go first."""
        if (walk := self._walks.get((epoch, shard))) is None:
            index = self._indices[shard]
            walk = self._walks[epoch, shard] = self._order.walk(
                epoch, shard, index.counts, index.groups, self._shards[shard].bytes
            )
            while len(self._walks) > 2 * self._order.lanes + 1:
                self._walks.popitem(last=False)
        return walk


class ChunkKey(NamedTuple):
    """A chunk of a shard in one epoch's order."""

    epoch: int
    shard: int
    chunk: int


class _Need(NamedTuple):
    """The rows of a batch that come from one chunk: row numbers in the shard, and their places in the batch."""

    key: ChunkKey
    rows: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]


class StreamedStream:
    """Images read and decoded as they are wanted. What is held: the chunks that this rank's lanes stand in and those
    they enter within AHEAD steps.
    """

    def __init__(
        self,
        shards: ShardReader,
        order: DrawOrder,
        part: slice,
        decoder: Decoder,
        masks: bool,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._shards, self._order, self._part = shards, order, part
        self._decoder, self._masks, self._pool = decoder, masks, pool
        # reading waits for the network, so it has threads of its own
        self._reading = ThreadPoolExecutor(8, thread_name_prefix="read")
        self._walks: dict[tuple[int, int], tuple[ShardIndex, ShardOrder]] = {}
        self._coming: deque[tuple[int, list[_Need]]] = deque()
        self.held: dict[ChunkKey, Future[Rows]] = {}

    def batch(self, step: int) -> Batch:
        needs = self._advance(step)
        count = self._part.stop - self._part.start
        images, masks = self._decoder.empty(count, self._masks)
        targets, places, tasks = [], [], []
        for need in needs:
            rows = self.held[need.key].result()
            picks = np.searchsorted(rows.rows, need.rows)
            tasks += self._decoder.into(rows, picks, images, masks, need.at)
            targets.append((rows.classes[picks], rows.weights[picks]))
            places.append(need.at)
        _finish(tasks)
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        classes, weights = _stack(targets)
        return Batch(images, classes[back], weights[back], self._order.seeds(step)[self._part], masks)

    def _advance(self, step: int) -> list[_Need]:
        """What `step` needs; starts reading what the next steps need and lets go of everything else."""
        while self._coming and self._coming[0][0] != step:
            self._coming.popleft()
        for later in range(step + len(self._coming), step + AHEAD + 1):
            self._coming.append((later, self._needs(later)))
            for need in self._coming[-1][1]:
                if need.key not in self.held:
                    index, walk = self._walks[need.key[:2]]
                    self.held[need.key] = self._reading.submit(
                        self._shards.read, need.key.shard, walk.groups[need.key.chunk], index
                    )
        wanted = {need.key for _, needs in self._coming for need in needs}
        self.held = {key: future for key, future in self.held.items() if key in wanted}
        walked = {(key.epoch, key.shard) for key in wanted}
        self._walks = {key: walk for key, walk in self._walks.items() if key in walked}
        return self._coming[0][1]

    def _needs(self, step: int) -> list[_Need]:
        places = self._order.places(step, self._part.start, self._part.stop)
        parts = list(_by_shard(places))
        missing = [(epoch, shard) for epoch, shard, _ in parts if (epoch, shard) not in self._walks]
        self._walks.update(zip(missing, self._reading.map(self._walk, missing), strict=True))
        needs = []
        for epoch, shard, here in parts:
            walk = self._walks[epoch, shard][1]
            offsets = places.offset[here]
            chunks = np.searchsorted(walk.ends, offsets, side="right")
            for chunk in np.unique(chunks):
                inside = chunks == chunk
                needs.append(_Need(ChunkKey(epoch, shard, int(chunk)), walk.rows[offsets[inside]], here[inside]))
        return needs

    def _walk(self, key: tuple[int, int]) -> tuple[ShardIndex, ShardOrder]:
        epoch, shard = key
        index = self._shards.index(shard)
        return index, self._shards.walk(self._order, epoch, shard, index)


def _by_shard(places: DrawPositions) -> Iterable[tuple[int, int, npt.NDArray[np.int64]]]:
    """Epoch, shard and the rows of the batch that come from them."""
    pairs, which = np.unique(np.stack([places.epoch, places.shard], 1), axis=0, return_inverse=True)
    for i, (epoch, shard) in enumerate(pairs):
        yield int(epoch), int(shard), np.flatnonzero(which.reshape(-1) == i)


def _stack(targets: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]) -> tuple[Tensor, Tensor]:
    """Targets of several widths one under the other: classes padded with -1, weights with 0."""
    width = max(classes.shape[1] for classes, _ in targets)
    classes = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part, _ in targets]
    weights = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for _, part in targets]
    return torch.from_numpy(np.concatenate(classes)), torch.from_numpy(np.concatenate(weights))


def _finish(tasks: list[Future[None]]) -> None:
    for task in tasks:
        task.result()
