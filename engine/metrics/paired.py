"""Do two models differ on the same images? McNemar's test for answers that are right or wrong, see `resampling` for other measures."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy import stats

from engine.metrics.interval import Interval

EXACT_BELOW = 25
"""Discordant pairs below which McNemar's test is the exact binomial one, the usual rule."""


@dataclass(frozen=True)
class PairedTest:
    """The score of the second model minus that of the first, on images that both have an answer for."""

    difference: Interval
    p_value: float
    """Probability of a difference at least this large when the models are equally good, two-sided."""
    images: int

    def significant(self, level: float = 0.05) -> bool:
        """Whether a difference this large is unlikely to be chance."""
        return self.p_value < level


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> PairedTest:
    """The paired test of two models from what each got right, (N,) each.

    Exact for few discordant pairs, chi-squared with continuity correction otherwise. Raises ValueError for different numbers of images.
    """
    if len(first_right) != len(second_right):
        raise ValueError(f"a paired test needs the same images: {len(first_right)} and {len(second_right)} given")
    total = len(first_right)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    discordant = only_first + only_second
    if discordant == 0:
        p_value = 1.0
    elif discordant < EXACT_BELOW:
        p_value = min(1.0, 2 * float(stats.binom.cdf(min(only_first, only_second), discordant, 0.5)))
    else:
        p_value = float(stats.chi2.sf(max(0, abs(only_first - only_second) - 1) ** 2 / discordant, 1))
    difference = (only_second - only_first) / total
    spread = np.sqrt(discordant / total - difference**2) / np.sqrt(total)
    half = float(NormalDist().inv_cdf(0.975) * spread)
    return PairedTest(Interval(difference, difference - half, difference + half), p_value, total)
