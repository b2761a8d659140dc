"""How far confidence can be believed: calibration error with its interval and floor, precision by confidence. See `temperature` for the repair."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.metrics.interval import Interval, normal_interval, proportion
from engine.metrics.resampling import bootstrap

Floats = npt.NDArray[np.floating]

DRAWS = 2 * 10**6
"""Images drawn in all resamples of one calibration error, about a fifth of a second."""
LEAST_RESAMPLES, RESAMPLES = 50, 500


@dataclass(frozen=True)
class Bin:
    """Images whose confidence lies in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float
    """Mean confidence of the bin."""
    precision: Interval
    """Share that is right."""


def binned(confidence: Floats, right: npt.NDArray[np.bool_], num_bins: int = 15) -> list[Bin]:
    """Precision by confidence in bins of equal width, empty ones left out: `confidence` and `right` (N,).

    Of pseudo-labels with known truth this is the table that tells where a threshold pays.
    """
    edges, place = np.linspace(0, 1, num_bins + 1), _bins_of(confidence, num_bins)
    count = np.bincount(place, minlength=num_bins)
    total = np.bincount(place, confidence, minlength=num_bins)
    hits = np.bincount(place, right, minlength=num_bins).astype(int)
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(count[i]),
            float(total[i] / count[i]),
            proportion(int(hits[i]), int(count[i])),
        )
        for i in np.flatnonzero(count)
    ]


def _bins_of(confidence: Floats, num_bins: int) -> npt.NDArray[np.int64]:
    """The bin (low, high] of each confidence (N,), in 0..num_bins-1."""
    edges = np.linspace(0, 1, num_bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)


def expected_calibration_error(confidence: Floats, right: npt.NDArray[np.bool_], num_bins: int = 15) -> float:
    """Expected calibration error: the gap between confidence and share of right answers, averaged over bins by their size."""
    bins = binned(confidence, right, num_bins)
    return sum(b.count * abs(b.confidence - b.precision.value) for b in bins) / len(confidence)


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error of N images: positive by chance alone, so to be read against its floor."""

    error: Interval
    """With the bias-corrected bootstrap interval over images."""
    floor: float
    """Mean error of a model that is perfectly calibrated, with these confidences and this many images."""
    brier: float
    """Mean squared difference of the confidence and whether the answer was right."""


def calibration_error(
    confidence: Floats, right: npt.NDArray[np.bool_], num_bins: int = 15, seed: int = 0
) -> CalibrationError:
    """Expected calibration error of `confidence` and `right` (N,), each N answers. Resamples are fewer where N is large."""
    resamples = int(np.clip(DRAWS // len(confidence), LEAST_RESAMPLES, RESAMPLES))
    place = _bins_of(confidence, num_bins)
    gap = confidence.astype(np.float64) - right

    def error(weights: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        sums = np.stack([(gap[place == b, None] * weights[place == b]).sum(0) for b in np.unique(place)])
        return np.abs(sums).sum(0) / len(gap)

    rng = np.random.default_rng(seed)
    by_chance = [
        np.abs(np.bincount(place, confidence - (rng.random(len(gap)) < confidence), minlength=num_bins)).sum()
        / len(gap)
        for _ in range(max(LEAST_RESAMPLES, resamples // 5))
    ]
    return CalibrationError(
        bootstrap(error, len(gap), resamples=resamples, seed=seed),
        float(np.mean(by_chance)),
        float((gap**2).mean()),
    )


def gap_change(
    teacher_confidence: Floats,
    teacher_right: npt.NDArray[np.bool_],
    student_confidence: Floats,
    student_right: npt.NDArray[np.bool_],
    level: float = 0.05,
) -> Interval:
    """How much more overconfident (confidence minus share of right answers) the student is on the same images (N,), interval at 1 - level.

    Paired, so that images hard for both do not blur it; positive is worse.
    """
    change = (student_confidence - student_right) - (teacher_confidence - teacher_right).astype(np.float64)
    return normal_interval(change, 1 - level)
