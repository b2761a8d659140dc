"""Accuracy with its uncertainty, and the paired test of two models on the same images."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy import stats

EXACT_BELOW = 25
"""Discordant pairs below which McNemar's test is the exact binomial one, the usual rule."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: honest near 0 and 1 and for few images, where the normal one is not."""
    if total == 0:
        raise ValueError("accuracy of no images is not defined")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return 0.0 if correct == 0 else low, 1.0 if correct == total else high


def proportion(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """The share `correct` of `total` with its Wilson interval."""
    return Interval(correct / total, *wilson(correct, total, confidence))


def accuracy(predicted: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], confidence: float = 0.95) -> Interval:
    """Share of (N,) predictions that equal the truth, with its interval."""
    return proportion(int((predicted == truth).sum()), len(truth), confidence)


@dataclass(frozen=True)
class PairedTest:
    """McNemar's test: do two models differ on the same images?"""

    only_first: int
    """Images that only the first model gets right."""
    only_second: int
    difference: Interval
    """Accuracy of the second minus that of the first, 95 % interval."""
    p_value: float

    def significant(self, level: float = 0.05) -> bool:
        """Whether a difference this large is unlikely to be chance."""
        return self.p_value < level


def mcnemar(first_right: npt.NDArray[np.bool_], second_right: npt.NDArray[np.bool_]) -> PairedTest:
    """The paired test of two models from what each got right, (N,) each.

    Exact for few discordant pairs, chi-squared with continuity correction otherwise.
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
    return PairedTest(only_first, only_second, Interval(difference, difference - half, difference + half), p_value)


def mean_over_seeds(values: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean over random states with Student's t interval; a single state has an infinite one."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)
