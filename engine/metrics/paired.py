"""Do two models differ on the same images? McNemar's mid-p test and Newcombe's interval for answers that are right or wrong, see `resampling` for
other measures.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from engine.metrics.interval import Interval, wilson


@dataclass(frozen=True)
class PairedTest:
    """The score of the second model minus that of the first, on images that both have an answer for."""

    difference: Interval
    """At confidence 1 - level."""
    p_value: float
    """Probability of a difference at least this large when the models are equally good, two-sided."""
    images: int
    level: float = 0.05
    """Significance level of the test."""

    @property
    def significant(self) -> bool:
        """Whether a difference this large is unlikely to be chance."""
        return self.p_value < self.level


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_], level: float = 0.05) -> PairedTest:
    """The paired test of two models from what each got right, (N,) each.

    The p value is McNemar's with mid-p (Fagerland, Lydersen, Laake 2013), the interval Newcombe's tenth method (1998).
    The two are different constructions: where one just reaches the level, the other may just miss it. Raises ValueError for different numbers of
    images, or none.
    """
    if len(first_right) != len(second_right) or not len(first_right):
        raise ValueError(f"a paired test needs the same images: {len(first_right)} and {len(second_right)} given")
    both = int((first_right & second_right).sum())
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    neither = len(first_right) - both - only_first - only_second
    interval = newcombe((both, only_first, only_second, neither), 1 - level)
    return PairedTest(interval, mid_p(only_first, only_second), len(first_right), level)


def mid_p(only_first: int, only_second: int) -> float:
    """McNemar's mid-p value of the images that only one of two models got right: the exact one less half the probability of what was seen."""
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    exact = stats.binom(discordant, 0.5)
    return min(1.0, 2 * float(exact.cdf(fewer)) - float(exact.pmf(fewer)))


def newcombe(table: tuple[int, int, int, int], confidence: float = 0.95) -> Interval:
    """Share right of the second model minus that of the first with Newcombe's interval (1998, method 10).

    `table`: images that both got right, only the first, only the second, neither. Wilson's limits of the two shares are put together with the
    correlation of the answers, corrected for continuity where it is positive.
    """
    both, only_first, only_second, neither = table
    total = sum(table)
    first, second = both + only_first, both + only_second
    product = float(first) * (total - first) * float(second) * (total - second)
    crossed = float(both) * neither - float(only_first) * only_second
    if crossed > 0:
        crossed = max(crossed - total / 2, 0.0)
    correlation = crossed / np.sqrt(product) if product > 0 else 0.0
    first_low, first_high = wilson(first, total, confidence)
    second_low, second_high = wilson(second, total, confidence)
    value = (second - first) / total

    def half(second_side: float, first_side: float) -> float:
        squared = second_side**2 - 2 * correlation * second_side * first_side + first_side**2
        return float(np.sqrt(max(squared, 0.0)))

    low = value - half(second / total - second_low, first_high - first / total)
    high = value + half(second_high - second / total, first / total - first_low)
    return Interval(value, max(-1.0, low), min(1.0, high))
