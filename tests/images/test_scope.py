"""A scope reads what it says, names what it reads, and travels without what it has opened."""

import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.images.collection import Collection
from engine.images.corruptions import corrupt
from engine.images.decode import content_hash
from engine.images.overlap import ExclusionSet, build_exclusion_set, read_content_hashes
from engine.images.scope import Scope
from engine.images.subset import Subset
from tests.images import making


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Scope:
    """Three shards of four images."""
    folder = tmp_path_factory.mktemp("pool")
    pq.write_table(pa.table({"image": [making.jpeg(seed) for seed in range(12)]}), folder / "pool.parquet")
    return Scope(Collection("pool", making.manifest(folder / "pool.parquet", folder / "list", rows_per_shard=4)))


@pytest.fixture(scope="module")
def evaluation_set(tmp_path_factory: pytest.TempPathFactory) -> ExclusionSet:
    """Image 5 of the pool."""
    folder = tmp_path_factory.mktemp("test")
    pq.write_table(pa.table({"image": [making.jpeg(5)]}), folder / "test.parquet")
    return build_exclusion_set({"test": read_content_hashes(making.manifest(folder / "test.parquet", folder / "list"))})


def rows(scope: Scope) -> list[tuple[int, int]]:
    return [
        (int(shard), row)
        for shard in scope.shards
        for batch in scope.read(int(shard), 3)
        for row in batch["row"].to_pylist()
    ]


def test_the_whole_collection_is_read_shard_by_shard(pool: Scope) -> None:
    assert pool.shards.tolist() == [0, 1, 2]
    assert rows(pool) == [(shard, row) for shard in range(3) for row in range(4)]
    assert pool.num_images == 12


def test_chosen_rows_alone_are_read_and_shards_without_any_are_not(pool: Scope) -> None:
    some = replace(pool, chosen=Subset.of(np.array([2, 0, 2]), np.array([3, 1, 0])))
    assert rows(some) == [(0, 1), (2, 0), (2, 3)]
    assert some.shards.tolist() == [0, 2]
    assert some.num_images == 3


def test_an_image_of_another_set_is_excluded_and_one_that_cannot_be_had_is_not(
    pool: Scope, evaluation_set: ExclusionSet
) -> None:
    scope = replace(pool, exclusions=evaluation_set)
    reasons = {
        (int(shard), row): scope.reason(key, image.as_buffer())
        for shard in scope.shards
        for batch in scope.read(int(shard))
        for row, key, image in zip(batch["row"].to_pylist(), batch["key"].to_pylist(), batch["image"], strict=True)
    }
    assert {address: reason for address, reason in reasons.items() if reason} == {(1, 1): "excluded: also in test"}
    assert scope.reason("a", None) is None
    assert pool.reason("a", pa.py_buffer(making.jpeg(5))) is None


def test_a_corruption_is_drawn_from_the_image_and_from_nothing_else(pool: Scope) -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    image = pa.py_buffer(making.jpeg(1))
    noisy = replace(pool, corruption=("gaussian_noise", 5))
    expected = corrupt(pixels, "gaussian_noise", 5, seed=content_hash(image))
    assert np.array_equal(noisy.corrupted(pixels, image), expected)
    assert not np.array_equal(expected, pixels)
    assert np.array_equal(pool.corrupted(pixels, image), pixels)


def test_the_digest_names_what_is_read_and_answered_and_nothing_else(pool: Scope, evaluation_set: ExclusionSet) -> None:
    others = [
        replace(pool, exclusions=evaluation_set),
        replace(pool, chosen=Subset.of(np.array([0]), np.array([1]))),
        replace(pool, chosen=Subset.of(np.array([0]), np.array([2]))),
        replace(pool, corruption=("fog", 1)),
        replace(pool, corruption=("fog", 2)),
    ]
    assert len({scope.digest for scope in [pool, *others]}) == 6
    assert replace(pool, max_rejected_percent=50).digest == pool.digest
    assert pool.digest == pool.collection.digest  # fits on raw images are named by it


def test_it_travels_small_and_reads_the_same_there(pool: Scope, evaluation_set: ExclusionSet) -> None:
    scope = replace(pool, exclusions=evaluation_set, chosen=Subset.of(np.array([2, 0]), np.array([3, 1])))
    read, digest = rows(scope), scope.digest
    packed = pickle.dumps(scope)
    there = pickle.loads(packed)
    assert (rows(there), there.digest, there.inputs) == (read, digest, scope.inputs)
    assert len(packed) < 4096
    assert "shards" not in pickle.loads(packed).__dict__  # nothing that was opened or counted goes along
