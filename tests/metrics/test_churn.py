"""Churn between two label tables."""

import pyarrow as pa

from engine.metrics.churn import churn


def test_churn_counts_changed_gained_and_lost() -> None:
    """An image kept for several classes counts with its best one."""

    def table(rows: list[tuple[int, int, int, float]]) -> pa.Table:
        return pa.table(dict(zip(("shard", "row", "class", "score"), map(list, zip(*rows, strict=True)), strict=True)))

    before = table([(0, 0, 1, 0.9), (0, 0, 2, 0.3), (0, 1, 2, 0.5), (1, 0, 3, 0.5)])
    after = table([(0, 0, 1, 0.4), (0, 0, 2, 0.6), (0, 1, 2, 0.7), (2, 0, 3, 0.5), (2, 1, 3, 0.5)])
    found = churn(before, after)
    assert (found.both, found.changed, found.gained, found.lost) == (2, 1, 2, 1)
    assert found.rate == 0.5
    assert found.jaccard == 2 / 5
    assert churn(before, before).rate == 0
