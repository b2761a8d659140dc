"""Accuracy, intervals and the paired test against published values."""

import numpy as np
import pytest
from scipy import stats

from engine.metrics.interval import mean_over_seeds, proportion, wilson
from engine.metrics.paired import mcnemar, mid_p, newcombe


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
    """Agresti's approval ratings (150 against 86 discordant) and a small case (1 against 8: 0.0390625 is the exact test, mid-p is less)."""

    def pair(only_first: int, only_second: int, both: int) -> tuple[np.ndarray, np.ndarray]:
        first = np.repeat([True, False, True], [only_first, only_second, both])
        second = np.repeat([False, True, True], [only_first, only_second, both])
        return first, second

    large = mcnemar(*pair(150, 86, 1364))
    assert large.p_value == pytest.approx(2 * stats.binom.cdf(86, 236, 0.5) - stats.binom.pmf(86, 236, 0.5))
    assert large.difference.value == pytest.approx(-64 / 1600)
    assert large.significant
    small = mcnemar(*pair(1, 8, 20))
    assert small.p_value == pytest.approx(0.0390625 - 9 / 2**9)
    assert small.significant
    assert not mcnemar(*pair(1, 8, 20), level=0.01).significant
    with pytest.raises(ValueError, match="same images"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
    assert mcnemar(*pair(0, 0, 5)).p_value == 1


def test_mean_over_states() -> None:
    """Student's t: 1, 2, 3 has mean 2 and half-width 4.303 / sqrt(3)."""
    interval = mean_over_seeds([1, 2, 3])
    assert interval.high - 2 == pytest.approx(2.4841, abs=1e-4)
    assert mean_over_seeds([0.5]).low == -np.inf


def test_newcombe_known_value() -> None:
    """Newcombe 1998, table II: 36 both, 2 and 12 discordant: 0.0569 to 0.3404. Bentur's children in Fagerland 2014: -0.507 to -0.026, mid-p 0.039."""
    children = newcombe((1, 7, 1, 12))
    assert (round(children.low, 3), round(children.high, 3)) == (-0.507, -0.026)
    assert round(mid_p(7, 1), 3) == 0.039
    found = newcombe((36, 2, 12, 0))
    assert (round(found.low, 4), found.value, round(found.high, 4)) == (0.0569, 0.2, 0.3404)
    mirrored = newcombe((36, 12, 2, 0))
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("images", [30, 100, 1000])
@pytest.mark.parametrize("discordant", [(0.05, 0.05), (0.10, 0.05), (0.02, 0.01)])
def test_the_paired_interval_covers_the_truth_and_agrees_with_its_test(
    images: int, discordant: tuple[float, float]
) -> None:
    """1,000 simulated pairs of models: covered in at least 93 %, never of width 0, and at most 1 % contradict the test of the same level."""
    first, second = discordant
    rest = 1 - first - second
    drawn = np.random.default_rng(images).multinomial(images, [0.8 * rest, first, second, 0.2 * rest], 1000)
    covered = contradicted = 0
    for both, only_first, only_second, neither in drawn.tolist():
        interval = newcombe((both, only_first, only_second, neither))
        assert interval.high > interval.low
        covered += interval.low <= second - first <= interval.high
        contradicted += (mid_p(only_first, only_second) < 0.05) == (interval.low <= 0 <= interval.high)
    assert covered >= 930
    assert contradicted <= 10
