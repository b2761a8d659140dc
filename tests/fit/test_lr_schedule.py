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


def test_steps_and_constant() -> None:
    settings = fit_settings(steps=30, sched="step", decay_steps=[10, 20], decay_rate=0.1, lr=1.0)
    assert [learning_rate(settings, step) for step in (0, 9, 10, 20)] == pytest.approx([1, 1, 0.1, 0.01])
    assert learning_rate(fit_settings(sched="constant", lr=0.3), 19) == 0.3
