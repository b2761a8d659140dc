"""Confusion counts, and churn between two label tables."""

import numpy as np
import pyarrow as pa

from engine.metrics.churn import churn
from engine.metrics.confusion import confusion, precision, recall, worst_pairs


def test_confusion_and_its_shares() -> None:
    """Rows are truth, columns predictions; classes without images have no share."""
    counts = confusion(np.array([0, 1, 1, 0, 0]), np.array([0, 1, 0, 0, 1]), 3)
    assert counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert np.array_equal(recall(counts), [2 / 3, 0.5, np.nan], equal_nan=True)
    assert np.array_equal(precision(counts), [2 / 3, 0.5, np.nan], equal_nan=True)
    assert worst_pairs(counts, 5) == [(0, 1, 1), (1, 0, 1)]


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
