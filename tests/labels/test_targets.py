"""The sparse target form against dense arrays."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from engine.labels import targets

C = 7


def distributions(rows: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(C, 0.5), rows)


def test_hard_and_tags() -> None:
    """One entry of 1; k entries of 1/k."""
    assert np.array_equal(targets.dense(targets.hard(np.array([2, 0]), C), C), np.eye(C)[[2, 0]])
    dense = targets.dense(targets.tags([[1, 4], [3], [0, 1, 2, 6]], C), C)
    assert dense[0, [1, 4]].tolist() == [0.5, 0.5]
    assert np.allclose(dense.sum(axis=1), 1)
    assert np.count_nonzero(dense, axis=1).tolist() == [2, 1, 4]
    with pytest.raises(ValueError, match="row 1 has no tag"):
        targets.tags([[1], []], C)


def test_top_keeps_the_heaviest_and_spreads_the_rest() -> None:
    """Truncated to m classes and back: kept weights are unchanged, the residual is even, rows sum to 1."""
    dense = distributions(50)
    for m in (1, 3, C):
        back = targets.dense(targets.top(dense, m), C)
        assert np.allclose(back.sum(axis=1), 1, atol=1e-6)
        heaviest = np.argsort(-dense, axis=1)[:, :m]
        assert np.allclose(np.take_along_axis(back, heaviest, 1), np.take_along_axis(dense, heaviest, 1), atol=1e-6)
        rest = np.ones_like(dense, dtype=bool)
        np.put_along_axis(rest, heaviest, False, axis=1)
        assert all(np.ptp(row[free]) < 1e-6 for row, free in zip(back, rest, strict=True) if free.any())


def test_truncation_costs_less_divergence_with_its_residual() -> None:
    """KL(dense || back) is finite and falls to 0 as m grows to all classes."""
    dense = distributions(200)
    divergence = [
        float((dense * np.log(dense / np.clip(targets.dense(targets.top(dense, m), C), 1e-30, 1))).sum(axis=1).mean())
        for m in range(1, C + 1)
    ]
    assert all(a >= b - 1e-9 for a, b in pairwise(divergence))
    assert divergence[-1] < 1e-6


def test_padded_lists_of_unequal_length() -> None:
    """Rectangular arrays with weight 0 beyond the end of a list."""
    classes, weights = targets.padded(targets.tags([[1, 4], [3]], C), width=3)
    assert classes.tolist() == [[1, 4, 0], [3, 0, 0]]
    assert weights.tolist() == [[0.5, 0.5, 0], [1, 0, 0]]
    with pytest.raises(ValueError, match="row 0 has 2 target entries, at most 1 fit"):
        targets.padded(targets.tags([[1, 4], [3]], C), width=1)


def test_slices_of_a_table_are_read_in_place() -> None:
    """A slice of Arrow lists has offsets that do not start at 0."""
    whole = targets.tags([[0], [1, 2], [5, 6]], C)
    part = targets.Targets(whole.classes.slice(1, 2), whole.weights.slice(1, 2))
    assert np.array_equal(targets.dense(part, C), targets.dense(whole, C)[1:])
    assert targets.padded(part)[0].tolist() == [[1, 2], [5, 6]]


def test_check_names_the_row() -> None:
    """Unknown classes, negative or excess weights, lists that do not match."""

    def made(classes: list, weights: list) -> targets.Targets:
        return targets.Targets(pa.array(classes, pa.list_(pa.uint16())), pa.array(weights, pa.list_(pa.float32())))

    targets.check(made([[1], [2, 3]], [[1.0], [0.5, 0.2]]), C, "x")
    with pytest.raises(ValueError, match="x: row 1 has class 9"):
        targets.check(made([[1], [9]], [[1.0], [1.0]]), C, "x")
    with pytest.raises(ValueError, match="row 0 has a weight that is negative"):
        targets.check(made([[1]], [[-0.1]]), C, "x")
    with pytest.raises(ValueError, match=r"row 0 has weights that sum to 1\.5"):
        targets.check(made([[1, 2]], [[1.0, 0.5]]), C, "x")
    with pytest.raises(ValueError, match="differ in length"):
        targets.check(made([[1, 2]], [[1.0]]), C, "x")
