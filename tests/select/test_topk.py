"""The streaming top-K: whatever the split, order and number of workers, the answer of a full sort."""

import importlib
import pickle

import numpy as np
import pytest

from engine.select import topk
from engine.select.scores import tie_hash
from engine.select.topk import TopK, Winners

C = 6


@pytest.fixture(autouse=True, params=["blocks", "kernel"])
def _small_log(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A log of a few rows, so that small tests compact often; numpy's loops and the compiled ones in turn."""
    if request.param == "kernel":
        pytest.importorskip("numba", reason="the compiled loops need the numba extra")
    monkeypatch.setattr(topk, "loops", importlib.import_module(f"engine.select.{request.param}"))
    monkeypatch.setattr(topk, "SLACK_ROWS", 8)
    monkeypatch.setattr(topk, "BLOCK_ROWS", 13)


Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def rows(n: int, seed: int, num_scores: int = 9) -> Rows:
    random = np.random.default_rng(seed)
    address = random.choice(10 * n, n, replace=False)
    classes = (random.integers(0, C, n) * random.integers(0, 2, n)).astype(np.uint16)
    return (
        classes,
        random.integers(0, num_scores, n).astype(np.float16),
        (address // 7).astype(np.int32),
        (address % 7).astype(np.int32),
    )


def full_sort(data: Rows, k: int | None) -> list[tuple]:
    classes, scores, shard, row = data
    tie = tie_hash(shard, row)
    wanted = []
    for c in range(C):
        mine = sorted(
            (-float(scores[i]), int(tie[i]), int(shard[i]), int(row[i])) for i in np.flatnonzero(classes == c)
        )
        wanted += [(c, -s, shard, row, rank) for rank, (s, _, shard, row) in enumerate(mine[:k])]
    return wanted


def listed(winners: Winners) -> list[tuple]:
    columns = (winners.classes, winners.scores.astype(float), winners.shard, winners.row, winners.rank)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("k", [1, 5, 40, None])
@pytest.mark.parametrize("num_scores", [1, 9, 2000])
def test_equals_a_full_sort_for_every_split_and_order(k: int | None, num_scores: int) -> None:
    """Random pieces in random order over random workers, merged in random order."""
    data = rows(500, seed=1, num_scores=num_scores)
    wanted = full_sort(data, k)
    for seed in range(6):
        random = np.random.default_rng(seed)
        workers = [TopK(C, k) for _ in range(int(random.integers(1, 5)))]
        shuffled = random.permutation(500)
        for piece in np.split(shuffled, np.sort(random.integers(0, 500, 12))):
            picked = tuple(column[piece] for column in data)
            random.choice(np.array(workers, dtype=object)).update(
                *picked, payload=[picked[3] * 2, np.stack([picked[2]] * 3, 1)]
            )
        first, *others = (pickle.loads(pickle.dumps(worker)) for worker in workers)
        for other in others:
            first.merge(other)
        winners = first.result()
        assert listed(winners) == wanted
        assert np.array_equal(winners.payload[0], winners.row * 2)
        assert np.array_equal(winners.payload[1], np.stack([winners.shard] * 3, 1))
        assert np.array_equal(first.available, np.bincount(data[0], minlength=C))


@pytest.mark.parametrize("direction", [1, -1])
def test_sorted_input_is_no_special_case(direction: int) -> None:
    """Ascending scores are the worst order there is: every row beats the cut."""
    data = rows(500, seed=2, num_scores=400)
    order = np.argsort(data[1] * direction, kind="stable")
    top_k = TopK(C, 7)
    for start in range(0, 500, 50):
        piece = order[start : start + 50]
        top_k.update(data[0][piece], data[1][piece], data[2][piece], data[3][piece])
    assert listed(top_k.result()) == full_sort(data, 7)


def test_floor_of_each_class_is_strict() -> None:
    """A row passes only above its class's floor, and only such rows count as available."""
    data = rows(300, seed=3)
    floor = np.arange(C, dtype=np.float16)
    top_k = TopK(C, 4, floor)
    top_k.update(*data)
    above = data[1] > floor[data[0]]
    passing = (data[0][above], data[1][above], data[2][above], data[3][above])
    assert listed(top_k.result()) == full_sort(passing, 4)
    assert np.array_equal(top_k.available, np.bincount(data[0][above], minlength=C))


def test_memory_does_not_grow_with_rows() -> None:
    """However many rows pass by, the log holds at most its limit."""
    top_k = TopK(C, 10)
    for seed in range(50):
        classes, scores, shard, row = rows(1000, seed, num_scores=2000)
        top_k.update(classes, scores, shard + seed * 10_000, row)
        assert len(top_k._tie) <= top_k._limit <= 1.5 * C * 10 + 8


def test_more_classes_than_sixteen_bits() -> None:
    """Class indices beyond 65,535 keep their place."""
    top_k = TopK(70_000, 1)
    classes = np.array([69_999, 3, 69_999], dtype=np.uint32)
    top_k.update(classes, np.array([1, 2, 3], np.float16), np.arange(3, dtype=np.int32), np.zeros(3, np.int32))
    assert top_k.result().classes.tolist() == [3, 69_999]
    assert top_k.result().shard.tolist() == [1, 2]


def test_what_does_not_belong_together_is_refused() -> None:
    """Another K cannot be merged; a shard fed twice is noticed."""
    top_k = TopK(C, 3)
    with pytest.raises(ValueError, match="cannot merge top-4 of 6 classes into top-3 of 6"):
        top_k.merge(TopK(C, 4))
    one = (np.zeros(1, np.uint16), np.ones(1, np.float16), np.array([5], np.int32), np.array([9], np.int32))
    top_k.update(*one)
    top_k.update(*one)
    with pytest.raises(ValueError, match="shard 5 row 9 was counted twice"):
        top_k.result()
