"""Calibration: a planted temperature comes back, errors of known size are measured."""

import numpy as np
import pytest

from engine.metrics.calibration import binned, expected_calibration_error, fit_temperature


def drawn(temperature: float, rows: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model whose true temperature is `temperature`, and labels drawn accordingly."""
    random = np.random.default_rng(0)
    true = random.normal(0, 2, (rows, 10))
    p = np.exp(true) / np.exp(true).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > random.random((rows, 1))).argmax(axis=1)
    return true * temperature, labels


@pytest.mark.parametrize("planted", [0.3, 1.0, 2.5, 20.0])
def test_planted_temperature_comes_back(planted: float) -> None:
    """Within 2 %, with the calibration error repaired."""
    fitted = fit_temperature(*drawn(planted))
    assert fitted.value == pytest.approx(planted, rel=0.02)
    assert fitted.nll_after <= fitted.nll_before
    assert fitted.error_after < 0.01


def test_separable_labels_end_in_a_finite_temperature() -> None:
    """A teacher that is always right has no finite optimum; the fit stops all the same."""
    labels = np.arange(100) % 4
    fitted = fit_temperature(np.eye(4)[labels] * 3, labels)
    assert 0 < fitted.value < 1
    assert np.isfinite(fitted.nll_after)


def test_calibration_error_of_known_size() -> None:
    """Confidence 0.9 and accuracy 0.6 are 0.3 apart; a sure and right model has none."""
    right = np.repeat([True, False], [60, 40])
    assert expected_calibration_error(np.full(100, 0.9), right) == pytest.approx(0.3)
    assert expected_calibration_error(np.ones(10), np.ones(10, bool)) == 0


def test_bins_hold_every_image_once() -> None:
    """Bins are (low, high]; empty ones are left out; precision comes with its interval."""
    confidence = np.array([0.0, 0.5, 0.5, 0.51, 1.0])
    bins = binned(confidence, np.array([0, 1, 0, 1, 1], bool), num_bins=2)
    assert [(b.low, b.count, b.precision.value) for b in bins] == [(0.0, 3, 1 / 3), (0.5, 2, 1.0)]
    assert bins[0].confidence == pytest.approx(1 / 3)
