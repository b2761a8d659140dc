"""How far confidence can be believed: calibration error, precision by confidence, the temperature that repairs it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.metrics.interval import Interval, normal_interval, proportion

Floats = npt.NDArray[np.floating]


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
    edges = np.linspace(0, 1, num_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
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


def expected_calibration_error(confidence: Floats, right: npt.NDArray[np.bool_], num_bins: int = 15) -> float:
    """Expected calibration error: the gap between confidence and share of right answers, averaged over bins by their size."""
    bins = binned(confidence, right, num_bins)
    return sum(b.count * abs(b.confidence - b.precision.value) for b in bins) / len(confidence)


@dataclass(frozen=True)
class Temperature:
    """The temperature T that makes softmax(logits / T) fit held-out labels best, and what it changed."""

    value: float
    num_images: int
    nll_before: float
    nll_after: float
    error_before: float
    """Expected calibration error at temperature 1."""
    error_after: float


def fit_temperature(logits: Floats, labels: npt.NDArray[np.integer]) -> Temperature:
    """Fit T on logits (N, C) and labels (N,) never trained on: damped Newton for the log loss (arXiv 1706.04599)."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    true = z[np.arange(len(labels)), labels]
    predicted_right = z.argmax(axis=1) == labels

    def at(inverse: float) -> tuple[float, float, float, float]:
        """Loss, its first two derivatives in the inverse temperature, calibration error."""
        weight = np.exp(z * inverse)
        total = weight.sum(axis=1)
        p = weight / total[:, None]
        mean = (p * z).sum(axis=1)
        variance = (p * z * z).sum(axis=1) - mean**2
        loss = float((np.log(total) - inverse * true).mean())
        return (
            loss,
            float((mean - true).mean()),
            float(variance.mean()),
            expected_calibration_error(p.max(axis=1), predicted_right),
        )

    before, _, _, error_before = at(1.0)
    log_inverse = 0.0
    loss, slope, curvature, error = before, *at(1.0)[1:]
    for _ in range(100):
        inverse = float(np.exp(log_inverse))
        # In u = log(1/T): dL/du = slope * inverse, d2L/du2 = curvature * inverse^2 + slope * inverse, of which only
        # the first term is never negative.
        step = -slope * inverse / max(curvature * inverse**2 + max(slope, 0) * inverse, 1e-12)
        step = float(np.clip(step, -1, 1))
        while True:
            new = at(float(np.exp(log_inverse + step)))
            if new[0] <= loss or abs(step) < 1e-10:
                break
            step /= 2
        log_inverse += step
        loss, slope, curvature, error = new
        if abs(step) < 1e-9 or abs(log_inverse) > np.log(1e4):  # separable labels: the loss falls for ever
            break
    return Temperature(float(np.exp(-log_inverse)), len(labels), before, loss, error_before, error)


def gap_change(
    teacher_confidence: Floats,
    teacher_right: npt.NDArray[np.bool_],
    student_confidence: Floats,
    student_right: npt.NDArray[np.bool_],
) -> Interval:
    """How much more overconfident (confidence minus share of right answers) the student is on the same images (N,), 95 % interval.

    Paired, so that images hard for both do not blur it; positive is worse.
    """
    change = (student_confidence - student_right) - (teacher_confidence - teacher_right).astype(np.float64)
    return normal_interval(change)
