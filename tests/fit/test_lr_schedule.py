import math

import pytest

from engine.fit.lr_schedule import learning_rate
from tests.fit.sets import fit_settings


def test_cosine_with_warm_up() -> None:
    settings = fit_settings(steps=110, warmup_steps=10, lr=1.0)
    rates = [learning_rate(settings, step) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_fixmatchs_cosine_ends_at_a_fifth() -> None:
    settings = fit_settings(steps=1000, sched="cosine_7_16", lr=0.03)
    assert learning_rate(settings, 0) == 0.03
    assert learning_rate(settings, 500) == pytest.approx(0.03 * math.cos(7 * math.pi / 32))
    assert (
        learning_rate(settings, 1000)
        == pytest.approx(0.03 * math.cos(7 * math.pi / 16))
        == pytest.approx(0.00585, abs=1e-5)
    )


def test_flat_then_cosine() -> None:
    """fastai's fit_flat_cos: three quarters at the full rate."""
    settings = fit_settings(steps=400, sched="flat_cosine", lr=0.008)
    rates = [learning_rate(settings, step) for step in (0, 299, 300, 350, 400)]
    assert rates == pytest.approx([0.008, 0.008, 0.008, 0.004, 0])


def test_exponential_decay_in_stairs() -> None:
    """EfficientNet: times 0.97 every 2.4 epochs, counted from the first step, after the warm-up."""
    settings = fit_settings(steps=1000, sched="exp", decay_rate=0.97, decay_every=24, warmup_steps=50, lr=0.128)
    assert learning_rate(settings, 49) == pytest.approx(0.128)
    assert [learning_rate(settings, step) / 0.128 for step in (50, 71, 72, 240)] == pytest.approx(
        [0.97**2, 0.97**2, 0.97**3, 0.97**10]
    )


def test_steps_and_constant() -> None:
    settings = fit_settings(steps=30, sched="step", decay_steps=[10, 20], decay_rate=0.1, lr=1.0)
    assert [learning_rate(settings, step) for step in (0, 9, 10, 20)] == pytest.approx([1, 1, 0.1, 0.01])
    assert learning_rate(fit_settings(sched="constant", lr=0.3), 19) == 0.3
