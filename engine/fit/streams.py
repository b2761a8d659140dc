"""Where batches come from: a stream yields one rank's batch of a step as a pure function of (seed, stream name, step).

The global batch is the same for any number of workers that divides it; rank r of W gets its rows [r·B/W, (r+1)·B/W).
Position in the data is the step number, so resuming needs nothing else. A set that fits `cache_bytes` is decoded once
and kept; a larger one is read chunk by chunk and decoded batch by batch, in flat memory. Both draw in the same order
(engine.fit.order), so which one it is changes no result.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.fit.batch import Batch
from engine.fit.order import DrawOrder, DrawPositions, ShardOrder
from engine.fit.shards import Decoder, Rows, ShardIndex, ShardReader, Shards, threads
from engine.gather.training_set import TrainingSet
from engine.images.crops import RandomCrop
from engine.images.decode import Frame, Pixels

AHEAD = 4
"""Steps that a streamed set looks ahead for the chunks to read."""


class Stream(Protocol):
    """One named source of batches, as one rank sees it."""

    def batch(self, step: int) -> Batch: ...


@dataclass(frozen=True)
class StreamSpec:
    """How a stream is drawn: `batch_size` images a step over all workers, in one frame, or cropped by `crops`."""

    name: str
    batch_size: int
    seed: int
    frame: Frame
    cache_bytes: int
    rank: int = 0
    world: int = 1
    crops: tuple[RandomCrop, ...] = ()

    @property
    def part(self) -> slice:
        """This rank's rows of the global batch."""
        return slice(self.rank * self.batch_size // self.world, (self.rank + 1) * self.batch_size // self.world)

    def check(self, draws: int, uri: str) -> None:
        """Raise ValueError when the workers cannot share the batch evenly or the set at `uri` is empty."""
        if self.batch_size % self.world:
            raise ValueError(
                f"stream {self.name!r}: {self.world} workers cannot share {self.batch_size} images a step evenly; "
                f"set batch.{self.name} to a multiple of {self.world}"
            )
        if draws == 0:
            raise ValueError(f"stream {self.name!r} is empty: {uri} holds no image")

    def order(self, draws: Sequence[int]) -> DrawOrder:
        """The order of draws from shards of `draws` draws each."""
        return DrawOrder(draws, self.batch_size, self.seed, self.name)

    def threads(self) -> ThreadPoolExecutor:
        """Threads that decode this stream."""
        return ThreadPoolExecutor(threads(), thread_name_prefix=f"stream-{self.name}")


def open_gathered(training_set: TrainingSet, spec: StreamSpec) -> Stream:
    """The stream `spec` of a training set. Raises ValueError as `StreamSpec.check`."""
    spec.check(training_set.draws, training_set.uri)
    shards = Shards(training_set)
    order = spec.order([shard.draws for shard in training_set.shards])
    pool = spec.threads()
    decoder = Decoder(shards, spec.frame, pool, spec.crops)
    masks = shards.has_masks()
    if spec.crops:
        pictures = read_pictures(shards, decoder, spec.cache_bytes)
        if pictures is not None:
            return CachedPictures(shards, order, spec.part, decoder, pictures)
    elif training_set.rows * (4 if masks else 3) * spec.frame.img_size**2 <= spec.cache_bytes:
        with pool:  # not needed once everything is decoded
            return CachedStream(shards, order, spec.part, decoder, masks)
    return StreamedStream(shards, order, spec.part, decoder, masks)


@dataclass(frozen=True)
class Pictures:
    """A whole set in memory: pictures uint8 (h, w, 3) and masks (h, w) of its rows in order, and their targets."""

    pictures: list[Pixels]
    masks: list[Pixels | None]
    classes: Tensor
    weights: Tensor


def read_pictures(shards: Shards, decoder: Decoder, cache_bytes: int) -> Pictures | None:
    """The set decoded at full size; None, as soon as it is known, when it does not fit into `cache_bytes`."""
    if sum(shard.bytes for shard in shards.set.shards) > 2 * cache_bytes:
        return None  # encoded pictures are smaller than decoded ones, but for tiny ones of noise
    pictures: list[Pixels] = []
    masks: list[Pixels | None] = []
    targets = []
    left = cache_bytes
    for shard in range(len(shards.set.shards)):
        index = shards.index(shard)
        for group in range(len(index.groups)):
            rows = shards.read(shard, [group], index)
            found: list[tuple[Pixels, Pixels | None]] = [None] * len(rows.rows)  # type: ignore[list-item]

            def work(
                part: npt.NDArray[np.int64], rows: Rows = rows, found: list[tuple[Pixels, Pixels | None]] = found
            ) -> None:
                for i in part:
                    found[i] = decoder.picture(rows, int(i)), decoder.mask(rows, int(i))

            _finish(decoder.in_slices(work, len(found)))
            left -= sum(picture.nbytes + (0 if mask is None else mask.nbytes) for picture, mask in found)
            if left < 0:
                return None
            pictures += [picture for picture, _ in found]
            masks += [mask for _, mask in found]
            targets.append((rows.classes, rows.weights))
    return Pictures(pictures, masks, *_stack(targets))


class _Cached:
    """A set in memory, row after row. Every rank keeps all of it: in time each of its lanes passes everywhere."""

    def __init__(self, shards: Shards, order: DrawOrder, part: slice) -> None:
        self._order, self._part = order, part
        self._shards = shards
        self._indices = [shards.index(shard) for shard in range(len(shards.set.shards))]
        self._first = np.concatenate([[0], np.cumsum([shard.rows for shard in shards.set.shards])])
        self._walks: OrderedDict[tuple[int, int], ShardOrder] = OrderedDict()

    def _drawn(self, step: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Row numbers in the set (b,) and seeds (b,) of this rank's batch."""
        places = self._order.places(step, self._part.start, self._part.stop)
        where = np.empty(len(places.shard), np.int64)
        for epoch, shard, here in _by_shard(places):
            where[here] = self._first[shard] + self._walk(epoch, shard).rows[places.offset[here]]
        return where, self._order.seeds(step)[self._part]

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


class CachedStream(_Cached):
    """All images of a set decoded in memory as squares, uint8."""

    def __init__(self, shards: Shards, order: DrawOrder, part: slice, decoder: Decoder, masks: bool) -> None:
        super().__init__(shards, order, part)
        buffer = decoder.buffer(shards.set.rows, masks)
        targets = []
        for shard, index in enumerate(self._indices):
            if not len(index.counts):
                continue
            rows = shards.read(shard, range(len(index.groups)), index)
            everything = np.arange(len(rows.rows))
            _finish(decoder.into(rows, everything, buffer, self._first[shard] + everything))
            targets.append((rows.classes, rows.weights))
        self._images, self._masks = buffer.images[0], buffer.masks
        self._classes, self._weights = _stack(targets)

    def batch(self, step: int) -> Batch:
        where, seeds = self._drawn(step)
        index = torch.from_numpy(where)
        mask = None if self._masks is None else self._masks[index]
        return Batch(self._images[index], self._classes[index], self._weights[index], seeds, mask)


class CachedPictures(_Cached):
    """All pictures of a set decoded in memory in their own sizes; each draw takes its crops from them."""

    def __init__(self, shards: Shards, order: DrawOrder, part: slice, decoder: Decoder, cache: Pictures) -> None:
        super().__init__(shards, order, part)
        self._decoder, self._cache = decoder, cache

    def batch(self, step: int) -> Batch:
        where, seeds = self._drawn(step)
        cache = self._cache
        buffer = self._decoder.buffer(len(where), cache.masks[0] is not None, seeds)

        def work(part: npt.NDArray[np.int64]) -> None:
            for place in part:
                row = where[place]
                self._decoder.put(cache.pictures[row], cache.masks[row], buffer, int(place))

        _finish(self._decoder.in_slices(work, len(where)))
        index = torch.from_numpy(where)
        return Batch(buffer.images[0], cache.classes[index], cache.weights[index], seeds, buffer.masks, buffer.images)


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

    def __init__(self, shards: ShardReader, order: DrawOrder, part: slice, decoder: Decoder, masks: bool) -> None:
        self._shards, self._order, self._part = shards, order, part
        self._decoder, self._masks = decoder, masks
        # reading waits for the network, so it has threads of its own
        self._reading = ThreadPoolExecutor(8, thread_name_prefix="read")
        self._walks: dict[tuple[int, int], tuple[ShardIndex, ShardOrder]] = {}
        self._coming: deque[tuple[int, list[_Need]]] = deque()
        self.held: dict[ChunkKey, Future[Rows]] = {}

    def batch(self, step: int) -> Batch:
        needs = self._advance(step)
        seeds = self._order.seeds(step)[self._part]
        buffer = self._decoder.buffer(len(seeds), self._masks, seeds)
        targets, places, tasks = [], [], []
        for need in needs:
            rows = self.held[need.key].result()
            picks = np.searchsorted(rows.rows, need.rows)
            tasks += self._decoder.into(rows, picks, buffer, need.at)
            targets.append((rows.classes[picks], rows.weights[picks]))
            places.append(need.at)
        _finish(tasks)
        back = torch.from_numpy(np.argsort(np.concatenate(places)))
        classes, weights = _stack(targets)
        crops = buffer.images if self._decoder.crops else ()
        return Batch(buffer.images[0], classes[back], weights[back], seeds, buffer.masks, crops)

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
