"""The temperature that makes softmax(logits / T) fit held-out labels best (Guo, Pleiss, Sun, Weinberger 2017, arXiv 1706.04599)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.metrics.calibration import expected_calibration_error

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Fit:
    """How well probabilities fit the true classes of N images."""

    nll: float
    """Mean negative log-likelihood, nats."""
    brier: float
    """Mean squared distance of the probabilities from the one-hot truth, 0 to 2."""
    error: float
    """Expected calibration error of the best class."""


@dataclass(frozen=True)
class Temperature:
    """A temperature and what it changed. What is said of it is measured on images that it was not fitted on."""

    value: float
    """Fitted on all images."""
    num_images: int
    before: Fit
    """At temperature 1."""
    after: Fit
    """Each half of the images at the temperature that the other half was fitted to."""


def fit_temperature(logits: Floats, labels: npt.NDArray[np.integer], seed: int = 0) -> Temperature:
    """Fit T on logits (N, C) and labels (N,) never trained on. `seed`: of the halves on which the fit is judged."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    first = np.zeros(len(labels), bool)
    first[np.random.default_rng(seed).permutation(len(labels))[: len(labels) // 2]] = True
    judged = np.ones(len(labels))
    for half in (first, ~first):
        if half.any():
            judged[~half] = _temperature(z[half], labels[half])
    return Temperature(_temperature(z, labels), len(labels), _fit(z, labels), _fit(z / judged[:, None], labels))


def _fit(z: Floats, labels: npt.NDArray[np.integer]) -> Fit:
    """Of logits (N, C)."""
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    true = p[np.arange(len(labels)), labels]
    brier = (p**2).sum(axis=1) - 2 * true + 1
    error = expected_calibration_error(p.max(axis=1), p.argmax(axis=1) == labels)
    return Fit(float(-np.log(np.maximum(true, 1e-300)).mean()), float(brier.mean()), error)


def _temperature(z: Floats, labels: npt.NDArray[np.integer]) -> float:
    """Damped Newton for the log loss, in u = log(1 / T). Separable labels have no optimum: T ends at 1e-4."""
    true = z[np.arange(len(labels)), labels]

    def at(inverse: float) -> tuple[float, float, float]:
        """Loss and its first two derivatives in the inverse temperature."""
        weight = np.exp(z * inverse)
        total = weight.sum(axis=1)
        p = weight / total[:, None]
        mean = (p * z).sum(axis=1)
        variance = (p * z * z).sum(axis=1) - mean**2
        return float((np.log(total) - inverse * true).mean()), float((mean - true).mean()), float(variance.mean())

    log_inverse = 0.0
    loss, slope, curvature = at(1.0)
    for _ in range(100):
        inverse = float(np.exp(log_inverse))
        # dL/du = slope * inverse, d2L/du2 = curvature * inverse^2 + slope * inverse, of which only the first term is never negative.
        step = -slope * inverse / max(curvature * inverse**2 + max(slope, 0) * inverse, 1e-12)
        step = float(np.clip(step, -1, 1))
        while True:
            new = at(float(np.exp(log_inverse + step)))
            if new[0] <= loss or abs(step) < 1e-10:
                break
            step /= 2
        log_inverse += step
        loss, slope, curvature = new
        if abs(step) < 1e-9 or abs(log_inverse) > np.log(1e4):
            break
    return float(np.exp(-log_inverse))
