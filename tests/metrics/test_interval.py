"""Accuracy, intervals and the paired test against published values."""

import numpy as np
import pytest
from scipy import stats

from engine.metrics.interval import mean_over_seeds, proportion, wilson
from engine.metrics.paired import mcnemar


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (1, 10), (81, 263), (148, 148), (9_650, 10_000)])
def test_wilson_equals_scipy(correct: int, total: int) -> None:
    """The interval of scipy.stats.binomtest(method="wilson")."""
    wanted = stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    found = proportion(correct, total)
    assert (found.value, found.low, found.high) == pytest.approx((correct / total, wanted.low, wanted.high), abs=1e-12)


def test_wilson_known_value() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662."""
    low, high = wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    with pytest.raises(ValueError, match="no images"):
        wilson(0, 0)


def test_mcnemar_known_values() -> None:
    """Agresti's approval ratings (150 against 86 discordant) and an exact small case (1 against 8: 0.0390625)."""

    def pair(only_first: int, only_second: int, both: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.repeat([True, False, True], [only_first, only_second, both])
        second = np.repeat([False, True, True], [only_first, only_second, both])
        return first, second

    large = mcnemar(*pair(150, 86, 1364))
    assert large.p_value == pytest.approx(stats.chi2.sf(63**2 / 236, 1))
    assert large.difference.value == pytest.approx(-64 / 1600)
    assert large.difference.low == pytest.approx(-0.0587, abs=1e-4)
    assert large.difference.high == pytest.approx(-0.0213, abs=1e-4)
    small = mcnemar(*pair(1, 8, 20))
    assert small.p_value == pytest.approx(0.0390625)
    assert small.significant()
    assert mcnemar(*pair(0, 0, 5)).p_value == 1


def test_mean_over_states() -> None:
    """Student's t: 1, 2, 3 has mean 2 and half-width 4.303 / sqrt(3)."""
    interval = mean_over_seeds([1, 2, 3])
    assert interval.high - 2 == pytest.approx(2.4841, abs=1e-4)
    assert mean_over_seeds([0.5]).low == -np.inf
