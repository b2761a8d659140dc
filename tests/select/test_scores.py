"""Stored scores: every float16 value in its place, thresholds that split them exactly, tables read in place."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.select import scores
from engine.tables import schema
from tests.select.tables import manifest, random_pool

NUMBERS = np.arange(65536, dtype=np.uint16).view(np.float16)
NUMBERS = NUMBERS[~np.isnan(NUMBERS)]


def test_order_is_that_of_the_numbers() -> None:
    """Every pair of neighbouring float16 values keeps its order, both zeros are one, and the way back is exact."""
    ascending = np.sort(NUMBERS)
    order = scores.order_of(ascending).astype(int)
    assert np.array_equal(np.diff(order) > 0, ascending[1:] > ascending[:-1])
    assert np.array_equal(scores.score_of(scores.order_of(NUMBERS)), NUMBERS)


@given(
    st.floats(0, 1, exclude_max=True) | st.sampled_from(NUMBERS.tolist()).map(lambda s: float(scores.probability(s)))
)
def test_cut_splits_where_the_probability_does(threshold: float) -> None:
    """For every float16 value: probability above the threshold exactly when the score is above the cut."""
    if threshold in (0, 1):
        return
    above = scores.cut_for(threshold) < NUMBERS
    assert np.array_equal(above, scores.probability(NUMBERS) > threshold)


def test_cut_at_the_ends() -> None:
    """Threshold 0 passes whatever is finite; 1 is not a threshold."""
    assert (NUMBERS[np.isfinite(NUMBERS)] > scores.cut_for(0)).all()
    assert scores.cut_for(0.5) == 0
    with pytest.raises(ValueError, match="not a probability below 1"):
        scores.cut_for(1.0)


def test_probability_never_falls() -> None:
    """The order of scores is the order of probabilities, and log p agrees with it."""
    ascending = np.sort(NUMBERS)
    p = scores.probability(ascending)
    assert (np.diff(p) >= 0).all()
    middle = (p > 1e-300) & (p < 1)
    assert np.allclose(scores.log_probability(ascending)[middle], np.log(p[middle]), rtol=1e-12)


def test_address_comes_back_from_its_hash() -> None:
    """The tie hash is a bijection: known value of splitmix64, exact inverse, no order left in it."""
    random = np.random.default_rng(0)
    shard, row = (random.integers(0, 2**31, 10_000).astype(np.int32) for _ in range(2))
    tie = scores.tie_hash(shard, row)
    back = scores.address_of(tie)
    assert np.array_equal(back[0], shard)
    assert np.array_equal(back[1], row)
    assert int(scores.tie_hash(np.zeros(1, np.int32), np.zeros(1, np.int32))[0]) == 0xE220A8397B1DCDAF
    counting = scores.tie_hash(np.zeros(10_000, np.int32), np.arange(10_000, dtype=np.int32))
    assert abs(np.corrcoef(np.arange(10_000), counting.astype(float))[0, 1]) < 0.05


@pytest.mark.parametrize("num_classes", [5, 70_000])
def test_tables_are_read_without_a_copy(num_classes: int) -> None:
    """What was packed comes back, from slices, batches and chunks alike; one chunk shares the table's memory."""
    pool = random_pool(50, 5, 3, seed=0)
    names = manifest(num_classes)
    expected = schema.predictions(num_classes, names.hash, 3)
    table = scores.pack(pool.shard, pool.row, pool.classes, pool.log_odds, expected)
    assert np.array_equal(scores.classes_of(table), pool.classes)
    assert np.array_equal(scores.scores_of(table.slice(7, 9)), pool.log_odds[7:16])
    assert np.array_equal(scores.classes_of(table.slice(7, 9).to_batches()[0]), pool.classes[7:16])
    chunked = pa.concat_tables([table.slice(0, 20), table.slice(20)])
    assert np.array_equal(scores.scores_of(chunked), pool.log_odds)
    assert scores.scores_of(table).ctypes.data == table["scores"].chunk(0).buffers()[1].address
    assert scores.scores_of(table.slice(0, 0)).shape == (0, 3)


def test_margin_needs_two_classes() -> None:
    """Best minus second probability; impossible where only the best is stored."""
    assert scores.margin(np.array([[0, 0]], np.float16)).tolist() == [0]
    with pytest.raises(ValueError, match="top_p >= 2"):
        scores.margin(np.array([[0]], np.float16))
