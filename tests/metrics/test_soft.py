"""Soft and several labels: closed forms, and scikit-learn's average precision, ties and all."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from engine.metrics.soft import average_precision, kl_divergence


def test_kl_is_zero_at_the_target_and_known_elsewhere() -> None:
    q = np.array([[0.7, 0.2, 0.1], [1, 0, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(kl_divergence(q, q), 0, atol=1e-12)
    np.testing.assert_allclose(kl_divergence(q, np.full((3, 3), 1 / 3))[1:], [np.log(3), np.log(1.5)])


@pytest.mark.parametrize("levels", [3, 1000])
def test_average_precision_is_that_of_scikit_learn(levels: int) -> None:
    rng = np.random.default_rng(levels)
    truth = rng.random(200) < 0.3
    score = rng.integers(0, levels, 200) / levels + (0.2 * truth if levels > 3 else 0)
    assert average_precision(truth, score) == pytest.approx(average_precision_score(truth, score))
    assert average_precision(truth, truth.astype(float)) == 1
    assert np.isnan(average_precision(np.zeros(3, bool), np.ones(3)))
