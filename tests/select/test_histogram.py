"""The histogram of stored scores, and what follows from it alone: cuts, previews and the two-pass selection."""

import pickle

import numpy as np
import pytest

from engine.select import histogram
from engine.select.histogram import Histogram
from engine.select.preview import preview
from engine.select.select import Selector
from engine.settings.select import SelectSettings
from tests.select.tables import Pool, random_pool

C = 6


@pytest.fixture(autouse=True)
def _settle_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histogram, "PENDING_ROWS", 64)


def counted(pool: Pool, pieces: int = 1, seed: int = 0) -> Histogram:
    """The histogram of best classes, from random pieces over two workers."""
    random = np.random.default_rng(seed)
    workers = [Histogram(C), Histogram(C)]
    for i, piece in enumerate(np.array_split(random.permutation(len(pool.row)), pieces)):
        workers[i % 2].update(pool.classes[piece, 0].astype(np.uint16), pool.log_odds[piece, 0])
    workers[0].merge(pickle.loads(pickle.dumps(workers[1])))
    return workers[0]


def test_counts_every_row_for_every_split() -> None:
    """The same cells however the rows were split, and the table brings it back."""
    pool = random_pool(500, C, 2, seed=0)
    whole = counted(pool)
    assert whole.counts.sum() == 500
    assert np.array_equal(whole.total, np.bincount(pool.classes[:, 0], minlength=C))
    again = Histogram.of(whole.table(), C)
    for other in (counted(pool, 7, seed=1), again):
        assert np.array_equal(whole.classes, other.classes)
        assert np.array_equal(whole.order, other.order)
        assert np.array_equal(whole.counts, other.counts)


@pytest.mark.parametrize("k", [1, 3, 20, 10_000])
def test_kth_best_score(k: int) -> None:
    """Of each class the K-th of its sorted scores; below every number where there are fewer."""
    pool = random_pool(800, C, 2, seed=k)
    found = counted(pool).kth_best(k)
    for c in range(C):
        mine = np.sort(pool.log_odds[pool.classes[:, 0] == c, 0])[::-1]
        assert (found[c] == mine[k - 1]) if len(mine) >= k else np.isnan(found[c])


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 0.999999])
@pytest.mark.parametrize("per_class", [None, 1, 17, 1000])
def test_preview_tells_the_selection_beforehand(threshold: float, per_class: int | None) -> None:
    """Available, kept and the lowest probability of each class are those that the selection then reports."""
    pool = random_pool(600, C, 2, seed=1)
    selector = Selector(SelectSettings(threshold=threshold, per_class=per_class), pool.manifest)
    selector.update(pool.table())
    _, report = selector.finish()
    told = preview(counted(pool), threshold, per_class)
    assert np.array_equal(told.available, report.available)
    assert np.array_equal(told.kept, report.kept)
    assert np.array_equal(told.lowest, report.lowest, equal_nan=True)
