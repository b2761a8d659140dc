"""Streams draw the same for any number of workers, cached or streamed, and every row exactly count times an epoch."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from engine.fit import order as order_module
from engine.fit import shards
from engine.fit.batch import Batch
from engine.fit.order import DrawOrder
from engine.fit.streams import AHEAD, CachedPictures, CachedStream, Stream, StreamedStream
from engine.gather.training_set import TrainingSet
from engine.images.crops import RandomCrop
from engine.images.decode import Frame
from engine.images.errors import RejectedImageError
from tests.fit.sets import open_stream, write_set
from tests.images.making import jpeg

CACHED, STREAMED = 2**30, 0
COUNTS = [1, 2, 3, 1, 1, 1, 1, 1, 4, 1, 3, 1]


def opened(training_set: TrainingSet, batch_size: int = 8, cache: int = CACHED, **spec: Any) -> Stream:
    spec = {"seed": 3, "size": 8, **spec}
    return open_stream("labelled", training_set, batch_size=batch_size, cache_bytes=cache, **spec)


def ids(batch: Batch) -> list[int]:
    """The numbers that `write_set` put into the first pixels."""
    return (batch.images[:, 0, 0, 0].int() * 256 + batch.images[:, 1, 0, 0]).tolist()


def assert_equal(a: Batch, b: Batch) -> None:
    for left, right in zip(a.__dict__.values(), b.__dict__.values(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture(scope="module")
def five_shards(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    counts = np.random.default_rng(0).integers(1, 4, 61)
    return write_set(tmp_path_factory.mktemp("set"), (20, 7, 15, 9, 10), counts=counts.tolist(), soft=True, masks=True)


@pytest.mark.parametrize("cache", [CACHED, STREAMED])
@pytest.mark.parametrize("world", [2, 4, 8])
def test_workers_share_the_same_global_batch(five_shards: TrainingSet, cache: int, world: int) -> None:
    alone = opened(five_shards, cache=cache)
    ranks = [opened(five_shards, cache=cache, rank=rank, world=world) for rank in range(world)]
    assert isinstance(alone, CachedStream if cache else StreamedStream)
    for step in (0, 1, 2, 40, 5):  # any order: a batch is a function of its step
        parts = [rank.batch(step) for rank in ranks]
        joined = Batch(
            torch.cat([part.images for part in parts]),
            torch.cat([part.classes for part in parts]),
            torch.cat([part.weights for part in parts]),
            np.concatenate([part.seeds for part in parts]),
            torch.cat([part.mask for part in parts if part.mask is not None]),
        )
        assert_equal(joined, alone.batch(step))


def test_cached_and_streamed_draw_alike(five_shards: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "HELD_BYTES", 2000)  # several chunks a shard
    cached, streamed = opened(five_shards), opened(five_shards, cache=STREAMED)
    for step in range(60):
        assert_equal(cached.batch(step), streamed.batch(step))


@pytest.mark.parametrize("held", [1, 10_000, 2**29])
@pytest.mark.parametrize("batch_size", [1, 6, 8, 500])
def test_an_epoch_draws_every_row_exactly_count_times(
    five_shards: TrainingSet, batch_size: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_module, "HELD_BYTES", held)
    draws = [shard.draws for shard in five_shards.shards]
    order = DrawOrder(draws, batch_size, 3, "labelled")
    steps = sum(draws) // batch_size + order.lanes + 1
    seen: Counter[tuple[int, int, int]] = Counter()
    for step in range(steps):
        places = order.places(step, 0, batch_size)
        seen.update(zip(*(column.tolist() for column in places), strict=True))
    expected = {(shard, offset) for shard, number in enumerate(draws) for offset in range(number)}
    assert {(shard, offset): n for (epoch, shard, offset), n in seen.items() if epoch == 0} == dict.fromkeys(
        expected, 1
    )
    counts, groups = np.array([2, 1, 3, 1, 1, 5]), (2, 3, 1)
    walk = order.walk(0, 0, counts, groups, 100)
    np.testing.assert_array_equal(np.bincount(walk.rows), counts)
    bounds = np.cumsum((0, *groups))
    for chunk, (start, end) in enumerate(zip((0, *walk.ends[:-1]), walk.ends, strict=True)):
        inside = {row for group in walk.groups[chunk] for row in range(bounds[group], bounds[group + 1])}
        assert set(walk.rows[start:end].tolist()) <= inside


@pytest.mark.parametrize("cache", [CACHED, STREAMED])
def test_counts_and_targets_arrive(tmp_path: Path, cache: int) -> None:
    training_set = write_set(tmp_path, (6, 6), counts=COUNTS)
    stream = opened(training_set, batch_size=4, cache=cache)
    batches = [stream.batch(step) for step in range(5)]
    drawn = [n for batch in batches for n in ids(batch)]
    assert Counter(drawn) == Counter(dict(enumerate(COUNTS)))
    assert [int(c) for batch in batches for c in batch.classes[:, 0]] == [n % 4 for n in drawn]
    assert drawn != sorted(drawn)
    following = [n for step in range(5, 10) for n in ids(stream.batch(step))]
    assert Counter(following) == Counter(drawn)
    assert following != drawn


def test_seeds_differ_between_images_steps_and_streams() -> None:
    seeds = [DrawOrder([10], 8, seed, name).seeds(step) for seed in (0, 1) for name in "ab" for step in range(50)]
    assert len(np.unique(np.concatenate(seeds))) == 8 * 200


def test_targets_of_unequal_length_are_padded(five_shards: TrainingSet) -> None:
    batch = opened(five_shards).batch(0)
    assert batch.classes.shape == batch.weights.shape == (8, 3)
    assert batch.mask is not None
    assert batch.mask.shape == (8, 1, 8, 8)
    assert batch.mask.dtype == batch.images.dtype == torch.uint8


def test_streamed_memory_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "HELD_BYTES", 1)  # a chunk is one row group
    training_set = write_set(tmp_path, (60,) * 8, group=20)
    for world in (1, 2):
        stream = opened(training_set, batch_size=8, cache=STREAMED, rank=world - 1, world=world)
        assert isinstance(stream, StreamedStream)
        lanes = 8 // world
        for step in range(150):
            stream.batch(step)
            assert len(stream.held) <= 2 * lanes  # the chunk a lane stands in and the one it enters within AHEAD steps
            assert all(len(future.result().rows) == 20 for future in stream.held.values())
        assert AHEAD < 20


def test_a_damaged_image_names_shard_and_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RejectedImageError("corrupt", "made up")

    monkeypatch.setattr(shards, "decode_array", refuse)
    for cache in (CACHED, STREAMED):
        with pytest.raises(RuntimeError, match=r"part-0.parquet: row \d+ cannot be decoded.*corrupt"):
            open_stream("x", write_set(tmp_path), batch_size=2, seed=0, size=8, cache_bytes=cache).batch(0)


def test_what_cannot_be_streamed_is_refused(tmp_path: Path) -> None:
    training_set = write_set(tmp_path)
    with pytest.raises(ValueError, match=r"3 workers cannot share 8 images.*batch.labelled"):
        opened(training_set, world=3)
    with pytest.raises(ValueError, match="empty"):
        opened(TrainingSet(training_set.uri, (), 4, training_set.classes_hash))
    with pytest.raises(ValueError, match="classes_hash"):
        opened(TrainingSet(training_set.uri, training_set.shards, 4, "another"))


@pytest.mark.parametrize("cache", [CACHED, STREAMED])
def test_crops_are_taken_from_the_whole_picture(tmp_path: Path, cache: int) -> None:
    """Each crop is a function of the image's seed alone: cached, streamed and shared by workers alike; plain views see the centre."""
    training_set = write_set(tmp_path, (20, 12), size=24, masks=True)
    crops = (RandomCrop(8, (0.2, 1.0)), RandomCrop(8), RandomCrop(8, (0.2, 1.0), view=1))
    stream = opened(training_set, cache=cache, crops=crops)
    assert isinstance(stream, CachedPictures if cache else StreamedStream)
    batch = stream.batch(3)
    assert [tuple(one.shape) for one in batch.crops] == [(8, 3, 8, 8)] * 3
    assert torch.equal(batch.images, batch.crops[0])
    assert not torch.equal(batch.crops[0], batch.crops[2]), "two views of one image have crops of their own"
    whole = opened(training_set, cache=CACHED, size=24).batch(3)
    for place in range(8):
        picture = whole.images[place].permute(1, 2, 0).numpy()
        for crop, found in zip(crops, batch.crops, strict=True):
            assert torch.equal(found[place], crop.image(picture, crop.draws(batch.seeds)[place]))
    assert batch.mask is not None
    ranks = [opened(training_set, cache=cache, crops=crops, rank=rank, world=2).batch(3) for rank in range(2)]
    assert torch.equal(torch.cat([rank.crops[2] for rank in ranks]), batch.crops[2])
    assert torch.equal(batch.pin().crops[1] if torch.cuda.is_available() else batch.crops[1], batch.crops[1])


def test_large_photographs_are_decoded_at_a_fraction_of_their_size(tmp_path: Path) -> None:
    data = jpeg(1, 400, 300)
    rows = shards.Rows(
        0, np.arange(1), pa.chunked_array([[data]]), None, np.zeros((1, 1), np.int64), np.ones((1, 1), np.float32)
    )
    with ThreadPoolExecutor(1) as pool:
        for crops, height in (((RandomCrop(8, (0.5, 1.0)),), 38), ((RandomCrop(64, (0.08, 1.0)),), 300)):
            decoder = shards.Decoder(shards.Shards(write_set(tmp_path)), Frame(8), pool, crops)
            assert decoder.decode(rows, 0).shape[0] == height


def test_pictures_that_do_not_fit_are_streamed(tmp_path: Path) -> None:
    training_set = write_set(tmp_path, (20, 12), size=24)
    decoded = 32 * 24 * 24 * 3
    crops = (RandomCrop(8, (0.2, 1.0)),)
    assert isinstance(opened(training_set, cache=decoded, crops=crops), CachedPictures)
    assert isinstance(opened(training_set, cache=decoded - 1, crops=crops), StreamedStream)
