"""Who is taken for whom, against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from engine.metrics.confusion import ClassCounts, worst_pairs

CLASSES = 5


def answers(rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, CLASSES, rows)
    return truth, np.where(rng.random(rows) < 0.6, truth, rng.integers(0, CLASSES, rows))


def test_shares_are_those_of_scikit_learn() -> None:
    truth, predicted = answers()
    found = ClassCounts.of(truth, predicted, CLASSES)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(truth, predicted)
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.f1, f1)
    np.testing.assert_array_equal(found.true, support)
    assert found.recall.mean() == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))


def test_a_class_without_images_or_answers_has_no_share() -> None:
    found = ClassCounts.of(np.array([0, 0, 1]), np.array([0, 1, 1]), 4)
    assert np.isnan(found.recall[2:]).all()
    assert np.isnan(found.precision[2:]).all()
    assert found.recall.tolist()[:2] == [0.5, 1.0]


def test_the_worst_pairs_are_those_of_the_matrix() -> None:
    truth, predicted = answers()
    matrix = metrics.confusion_matrix(truth, predicted)
    np.fill_diagonal(matrix, 0)
    pairs = worst_pairs(truth, predicted, CLASSES, 4)
    assert [count for *_, count in pairs] == sorted(matrix.ravel().tolist(), reverse=True)[:4]
    assert all(matrix[true, told] == count for true, told, count in pairs)
    assert worst_pairs(truth, truth, CLASSES, 4) == []
