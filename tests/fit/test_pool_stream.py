"""The raw stream: the same draws for any number of workers, an epoch is the pool, and what cannot be used never appears."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.fit import order as orders
from engine.fit import pool_stream as raw_module
from engine.fit.batch import Batch
from engine.fit.pool_stream import PoolShards, PoolSource
from engine.fit.streams import StreamedStream
from engine.ground.budget import TooManyRejectsError
from engine.images.manifest import Manifest
from engine.images.overlap import build_exclusion_set, read_content_hashes
from tests.fit.sets import open_stream, png
from tests.images import making

SIZE = 8


def numbered(number: int) -> bytes:
    pixels = np.full((SIZE, SIZE, 3), number % 200, np.uint8)
    pixels[0, 0] = (number // 256, number % 256, 0)
    return png(pixels)


def write(path: Path, images: list[bytes], group: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = [f"{path.stem}-{row}" for row in range(len(images))]
    pq.write_table(pa.table({"key": keys, "image": images}), path, row_group_size=group)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Images 0..63 in four files of 16."""
    folder = tmp_path_factory.mktemp("raw")
    for file in range(4):
        write(folder / "pool" / f"{file}.parquet", [numbered(16 * file + row) for row in range(16)])
    return making.manifest(folder / "pool", folder / "list", rows_per_shard=16)


def opened(raw: PoolSource, batch_size: int = 8, rank: int = 0, world: int = 1) -> StreamedStream:
    stream = open_stream("pool", raw, batch_size=batch_size, seed=3, size=SIZE, cache_bytes=0, rank=rank, world=world)
    assert isinstance(stream, StreamedStream)
    return stream


def numbers(batch: Batch) -> list[int]:
    return (batch.images[:, 0, 0, 0].int() * 256 + batch.images[:, 1, 0, 0]).tolist()


@pytest.fixture(params=[1024, 3], autouse=True)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(raw_module, "BLOCK_ROWS", request.param)
    return request.param


@pytest.mark.parametrize("world", [2, 4])
def test_workers_share_the_same_global_batch(pool: Manifest, world: int) -> None:
    alone, ranks = opened(PoolSource(pool)), [opened(PoolSource(pool), rank=rank, world=world) for rank in range(world)]
    for step in (0, 1, 11, 3):  # any order: a batch is a function of its step
        parts = [rank.batch(step) for rank in ranks]
        whole = alone.batch(step)
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        np.testing.assert_array_equal(np.concatenate([part.seeds for part in parts]), whole.seeds)
        assert whole.classes.shape == whole.weights.shape == (8, 0)


def test_an_epoch_is_the_pool(pool: Manifest) -> None:
    stream = opened(PoolSource(pool))
    first, second = (
        [n for step in range(epoch * 8, epoch * 8 + 8) for n in numbers(stream.batch(step))] for epoch in range(2)
    )
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second


def test_held_out_and_broken_images_never_appear(tmp_path: Path, pool: Manifest) -> None:
    """The whole first file is held out by content, one image by its key, and some are broken."""
    images = [[numbered(16 * file + row) for row in range(16)] for file in range(4)]
    images[2][3:7] = [b"no image", png(np.zeros((SIZE, SIZE, 3), np.uint8))[:40], b"", b"\xff\xd8\xff"]
    for file, one in enumerate(images):
        write(tmp_path / "pool" / f"{file}.parquet", one)
    write(tmp_path / "test" / "0.parquet", images[0])
    write(tmp_path / "test" / "1.parquet", [numbered(999), numbered(1000)])  # the key of another picture of the pool
    listed = making.manifest(tmp_path / "pool", tmp_path / "list", rows_per_shard=16)
    test = making.manifest(tmp_path / "test", tmp_path / "list-test")
    raw = PoolSource(listed, build_exclusion_set({"test": read_content_hashes(test)}), max_rejected_percent=100)
    never = set(range(16)) | {16, 17} | {35, 36, 37, 38}
    stream = opened(raw)
    drawn = Counter(n for step in range(24) for n in numbers(stream.batch(step)))
    assert set(drawn) == set(range(64)) - never
    assert max(drawn.values()) < 20, "one image stands in for too many"
    again, halves = opened(raw), [opened(raw, rank=rank, world=2) for rank in range(2)]
    for step in (17, 2):
        joined = [n for half in halves for n in numbers(half.batch(step))]
        assert numbers(again.batch(step)) == joined
    assert raw.digest != PoolSource(listed).digest != replace(raw, manifest=pool).digest


def test_too_many_broken_images_end_the_fit_and_held_out_ones_do_not(tmp_path: Path) -> None:
    write(tmp_path / "pool" / "0.parquet", [numbered(n) if n % 4 else b"\xff\xd8\xff" + bytes([n]) for n in range(64)])
    write(tmp_path / "good" / "0.parquet", [numbered(n) for n in range(64)])
    write(tmp_path / "test" / "0.parquet", [numbered(n) for n in range(0, 64, 4)])
    pool, good, test = (
        making.manifest(tmp_path / one, tmp_path / f"list-{one}", rows_per_shard=16) for one in ("pool", "good", "test")
    )

    def draw(raw: PoolSource) -> None:
        stream = opened(raw)
        for step in range(8):
            stream.batch(step)

    draw(PoolSource(pool, max_rejected_percent=60))
    draw(PoolSource(good, build_exclusion_set({"test": read_content_hashes(test)}), max_rejected_percent=0))
    with pytest.raises(
        TooManyRejectsError,
        match=r"pool stream: \d+ of \d+ images rejected \(.*max_rejected_percent=1\): \d+ \w+.*/pool",
    ):
        draw(PoolSource(pool, max_rejected_percent=1))


def test_a_pool_without_a_usable_image_says_so(tmp_path: Path) -> None:
    write(tmp_path / "pool" / "0.parquet", [b"nothing"] * 8)
    listed = making.manifest(tmp_path / "pool", tmp_path / "list", rows_per_shard=4)
    with pytest.raises(ValueError, match="no image can be used to train on"):
        opened(PoolSource(listed), batch_size=2).batch(0)


def test_memory_is_flat(pool: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "HELD_BYTES", 1)  # a block is one row
    stream = opened(PoolSource(pool))
    for step in range(40):
        stream.batch(step)
        assert sum(len(future.result().rows) for future in stream.held.values()) <= 8 * 6  # AHEAD steps of 8 images


def test_loose_files_stream_too(tmp_path: Path) -> None:
    making.folder(tmp_path / "pool", [f"{n}.jpg" for n in range(6)])
    (tmp_path / "pool" / "broken.jpg").write_bytes(b"no")
    listed = making.manifest(tmp_path / "pool", tmp_path / "list")
    stream = opened(PoolSource(listed), batch_size=7)
    one, other = stream.batch(0), stream.batch(5)
    assert one.images.shape == (7, 3, SIZE, SIZE)
    assert len({image.sum().item() for image in one.images}) == 6
    assert not torch.equal(one.images, other.images)


def test_blocks_are_read_by_many_threads_at_once(pool: Manifest) -> None:
    """Readers that stand where a block begins are shared, replaced and let go of while others read."""
    shards = PoolShards(PoolSource(pool), lanes=1)
    places = [(shard, block) for block in range(len(shards.index(0).groups)) for shard in (0, 0, 1, 1)] * 200

    def images(place: tuple[int, int]) -> list[bytes]:
        shard, block = place
        return shards.read(shard, [block], shards.index(shard)).images.to_pylist()

    expected = {place: images(place) for place in set(places)}
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(images, places)) == [expected[place] for place in places]
