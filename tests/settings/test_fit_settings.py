"""Settings of a fit that would have no effect are refused when they are read."""

from typing import Any

import pytest

from engine.settings.block import SettingsError, parse
from engine.settings.fit import FitSettings


def read(**changes: Any) -> FitSettings:
    return parse(FitSettings, {"steps": 10, "batch": {"labelled": 1}, **changes}, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"opt": "adamw"}, r"set lr, 0\.001 is usual"),
        ({"opt": "adamw", "lr": 0.1}, r"set lr, 0\.001 is usual"),
        ({"opt": "adamw", "lr": 0.001, "momentum": 0.5}, "momentum and nesterov belong to opt=sgd"),
        ({"opt": "adamw", "lr": 0.001, "nesterov": False}, "momentum and nesterov belong to opt=sgd"),
        ({"warmup_steps": 10}, "warmup_steps must be fewer than steps"),
        ({"decay_steps": [5]}, "decay_steps belong to sched=step"),
        ({"sched": "constant", "decay_steps": [5]}, "decay_steps belong to sched=step"),
        ({"sched": "step"}, "set them, or take sched=constant"),
        ({"sched": "step", "decay_steps": [5, 10]}, "before steps, each"),
        ({"sched": "step", "decay_steps": [3], "warmup_steps": 4}, "after warmup_steps"),
        ({"decay_rate": 0.5}, "decay_rate belongs to sched=step"),
    ],
)
def test_what_has_no_effect_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"opt": "adamw", "lr": 0.001},
        {"warmup_steps": 9},
        {"sched": "step", "decay_steps": [5], "decay_rate": 0.5},
        {"momentum": 0.0, "nesterov": False},
    ],
)
def test_what_has_an_effect_is_read(changes: dict[str, Any]) -> None:
    assert read(**changes).steps == 10
