"""Calibration: a planted temperature comes back, errors of known size are measured."""

import numpy as np
import pytest

from engine.metrics.calibration import binned, calibration_error, expected_calibration_error
from engine.metrics.temperature import fit_temperature


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
    assert fitted.after.nll <= fitted.before.nll + 1e-3
    assert fitted.after.error < 0.012
    assert fitted.after.brier <= fitted.before.brier + 1e-3


def test_separable_labels_end_in_a_finite_temperature() -> None:
    """A teacher that is always right has no finite optimum; the fit stops all the same."""
    labels = np.arange(100) % 4
    fitted = fit_temperature(np.eye(4)[labels] * 3, labels)
    assert 0 < fitted.value < 1
    assert np.isfinite(fitted.after.nll)


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


def test_what_a_temperature_is_said_to_do_is_measured_on_images_that_it_was_not_fitted_on() -> None:
    """Ten images: the fit flatters itself, the halves do not."""
    better = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        logits = random.normal(0, 2, (10, 3))
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        labels = (p.cumsum(axis=1) > random.random((10, 1))).argmax(axis=1)
        fitted = fit_temperature(logits, labels)
        better += fitted.after.nll < fitted.before.nll
    assert better < 100, "the logits were calibrated to begin with: a fit to ten images makes most of them worse"


def test_a_calibrated_model_has_an_error_all_the_same_and_it_is_the_floor() -> None:
    """100 images of a perfectly calibrated 10-class model: the error is about 0.12, by chance alone, and stands in its interval."""
    errors, floors, held = [], [], 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        confidence = random.uniform(0.1, 1, 100)
        found = calibration_error(confidence, random.random(100) < confidence)
        errors.append(found.error.value)
        floors.append(found.floor)
        held += found.error.low <= found.floor
    assert np.mean(floors) == pytest.approx(np.mean(errors), abs=0.01)
    assert 0.08 < np.mean(floors) < 0.16
    assert held > 90


def test_overconfidence_lies_above_its_floor() -> None:
    random = np.random.default_rng(0)
    found = calibration_error(np.full(2000, 0.9), random.random(2000) < 0.7)
    assert found.floor < found.error.low < 0.2 < found.error.high
    assert found.brier == pytest.approx(0.7 * 0.01 + 0.3 * 0.81, abs=0.02)
