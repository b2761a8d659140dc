"""Estimates with confidence intervals: proportions and means over random states."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"

    def __neg__(self) -> "Interval":
        """The same difference the other way round."""
        return Interval(-self.value, -self.high, -self.low)


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: honest near 0 and 1 and for few images, where the normal one is not."""
    if total == 0:
        raise ValueError("a proportion of no images is not defined")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    return 0.0 if correct == 0 else low, 1.0 if correct == total else high


def proportion(correct: int, total: int, confidence: float = 0.95) -> Interval:
    """The share `correct` of `total` with its Wilson interval."""
    return Interval(correct / total, *wilson(correct, total, confidence))


def mean_over_seeds(values: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean over random states with Student's t interval; a single state has an infinite one."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)


def normal_interval(values: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of independent values (N,), one per image, with its normal interval; infinite for a single one."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(NormalDist().inv_cdf((1 + confidence) / 2) * sample.std(ddof=1) / np.sqrt(len(sample)))
    return Interval(mean, mean - half, mean + half)
