"""Groups of shards: every shard once, the same for the same seed, mixed."""

import numpy as np
import pytest

from engine.gather.grouping import group_shards


@pytest.mark.parametrize("group_rows", [1, 7, 50, 10_000])
def test_every_shard_is_in_one_group(group_rows: int) -> None:
    rng = np.random.default_rng(0)
    shards = np.sort(rng.choice(100, 40, replace=False))
    rows = rng.integers(1, 20, 40)
    made = group_shards(shards, rows, group_rows, seed=3)
    assert np.concatenate([group.shards for group in made]).tolist() != shards.tolist() or len(made) == 1
    assert sorted(np.concatenate([group.shards for group in made]).tolist()) == shards.tolist()
    assert [group.unit for group in made] == list(range(len(made)))
    assert all((np.diff(group.shards) > 0).all() for group in made)


def test_groups_mix_a_sorted_collection_and_are_about_as_large_as_asked() -> None:
    shards, rows = np.arange(100), np.full(100, 10)
    made = group_shards(shards, rows, 100, seed=0)
    assert [g.shards.tolist() for g in made] == [g.shards.tolist() for g in group_shards(shards, rows, 100, seed=0)]
    assert [len(group.shards) for group in made] == [10] * 10
    assert min(np.ptp(group.shards) for group in made) > 40, "a group should draw from all over the collection"
    assert [g.shards.tolist() for g in made] != [g.shards.tolist() for g in group_shards(shards, rows, 100, seed=1)]


def test_no_picks_make_no_groups() -> None:
    assert group_shards(np.empty(0, np.int64), np.empty(0, np.int64), 10, seed=0) == []
