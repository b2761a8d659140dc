"""The list of suspicious labels: folds, order, cuts, and its judgement against planted errors."""

import numpy as np
import pyarrow as pa
import pytest

from engine.select.audit import SCORED, audit_quality, disagreements, relabelled, scored, stratified_folds
from engine.select.scores import pack
from engine.tables import schema


def table(given: list[int], predicted: list[int], score: list[float]) -> pa.Table:
    rows = np.arange(len(given), dtype=np.int32)
    columns = [
        np.zeros_like(rows),
        rows,
        rows % 2,
        *(np.array(c, np.int32) for c in (given, predicted)),
        np.array(score, np.float16),
    ]
    return pa.table([pa.array(column) for column in columns], schema=SCORED)


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_are_stratified_and_even(folds: int) -> None:
    labels = np.random.default_rng(0).choice(4, 203, p=[0.5, 0.3, 0.15, 0.05])
    fold = stratified_folds(labels, folds, seed=1)
    for members in (np.ones(203, bool), *(labels == c for c in range(4))):
        sizes = np.bincount(fold[members], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
    assert not np.array_equal(fold, stratified_folds(labels, folds, seed=2))
    assert np.array_equal(fold, stratified_folds(labels, folds, seed=1))


def test_a_class_of_one_image_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="class 1 has one"):
        stratified_folds(np.array([0, 0, 1]), 2, seed=0)


def test_an_image_scored_by_a_model_that_saw_it_is_a_bug() -> None:
    predictions = pack(
        np.zeros(2, np.int32),
        np.arange(2, dtype=np.int32),
        np.array([[0, 1], [1, 0]]),
        np.array([[2, -2], [1, -1]], np.float16),
        schema.predictions(2, "0" * 16, 2),
    )
    made = scored(predictions, np.array([1, 1]), np.array([3, 3]), 3)
    assert made["predicted"].to_pylist() == [0, 1]
    with pytest.raises(AssertionError, match="trained on it"):
        scored(predictions, np.array([1, 1]), np.array([3, 2]), 3)


def test_denials_come_the_most_confident_first_and_ties_in_one_order() -> None:
    one = table([0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 1, 1], [0.5, 9.0, 3.0, -1.0, 2.0, 2.0])
    assert disagreements(one).tolist()[0] == 2
    assert sorted(disagreements(one).tolist()) == [0, 2, 3, 4, 5]
    assert disagreements(one, above=0.5).tolist()[-1] == 0
    assert len(disagreements(one, top=2)) == 2
    back = one.take(pa.array([5, 4, 3, 2, 1, 0]))
    in_order = [one["row"].to_pylist()[place] for place in disagreements(one)]
    assert [back["row"].to_pylist()[place] for place in disagreements(back)] == in_order


def test_the_cut_is_strict_and_relabels_denials_alone() -> None:
    one = table([0, 0, 1], [1, 1, 1], [0.0, 0.1, 5.0])
    assert relabelled(one, 0.5).tolist() == [0, 1, 1]
    assert relabelled(one, None).tolist() == [0, 0, 1]


def test_precision_at_m_and_recall_by_hand() -> None:
    given, truth = np.array([0, 0, 0, 0, 0]), np.array([1, 0, 1, 0, 1])
    judged = audit_quality(np.array([0, 1, 2]), given, truth, at=(1, 2, 10))
    assert judged.precision == {1: 1.0, 2: 0.5, 3: pytest.approx(2 / 3)}
    assert judged.recall == pytest.approx(2 / 3)
    assert judged.wrong == 3
    assert np.isnan(audit_quality(np.array([], np.int64), given, given).recall)
