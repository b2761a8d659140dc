"""Groups of picks: every pick once, whole shards, one pass, the same for the same seed."""

import numpy as np
import pyarrow as pa
import pytest

from engine.gather.grouping import group_shards


def picks(shards: np.ndarray, rows: np.ndarray) -> pa.Table:
    number = shards.size
    return pa.table(
        {
            "shard": shards.astype(np.int32),
            "row": rows.astype(np.int32),
            "classes": [[1]] * number,
            "weights": [[1.0]] * number,
            "count": np.ones(number, np.int32),
        }
    )


@pytest.mark.parametrize("group_rows", [1, 7, 50, 10_000])
def test_every_pick_is_in_one_group_and_every_shard_in_one_group(group_rows: int) -> None:
    rng = np.random.default_rng(0)
    shards = rng.integers(0, 40, 300)
    table = picks(shards, rng.permutation(300))
    made = group_shards(table, group_rows, seed=3)
    together = pa.concat_tables(group.picks for group in made)
    assert sorted(zip(*(together[c].to_pylist() for c in ("shard", "row")), strict=True)) == sorted(
        zip(*(table[c].to_pylist() for c in ("shard", "row")), strict=True)
    )
    homes = [set(group.picks["shard"].to_pylist()) for group in made]
    assert sum(map(len, homes)) == len(set(shards.tolist())), "a shard stands in two groups: it would be read twice"
    assert [group.unit for group in made] == list(range(len(made)))
    for group in made:
        address = np.array(group.picks["shard"].to_pylist()) * 1000 + np.array(group.picks["row"].to_pylist())
        assert (np.diff(address) > 0).all()


def test_groups_mix_a_sorted_collection_and_do_not_depend_on_the_order_of_picks() -> None:
    shards = np.repeat(np.arange(100), 10)
    table = picks(shards, np.tile(np.arange(10), 100))
    shuffled = table.take(np.random.default_rng(1).permutation(1000))
    made, again = group_shards(table, 100, seed=0), group_shards(shuffled, 100, seed=0)
    assert [g.picks.to_pylist() for g in made] == [g.picks.to_pylist() for g in again]
    assert len(made) == 10
    spread = [np.ptp(np.array(group.picks["shard"].to_pylist())) for group in made]
    assert min(spread) > 40, "a group should draw from all over the collection"


def test_no_picks_make_no_groups() -> None:
    assert group_shards(picks(np.empty(0), np.empty(0)), 10, seed=0) == []
