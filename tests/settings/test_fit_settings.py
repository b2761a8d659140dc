"""Settings of training that would have no effect are refused while they are read, and defaults follow the optimiser."""

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from engine.settings.block import dump
from engine.settings.fit import FitSettings


def fit(**changed: Any) -> FitSettings:
    return FitSettings.model_validate({"steps": 10, "batch": {"labelled": 8}, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise": {"pool": {"pad": 2}}}, "noise names the stream 'pool', but batch has labelled"),
        ({"stream_weight": {"pseudo": 2}}, "stream_weight names the stream 'pseudo'"),
        ({"warmup_steps": 10}, "the rate would rise to the end"),
        ({"decay_steps": [5]}, "sched=cosine does not read it; set sched=step"),
        ({"decay_rate": 0.5, "sched": "constant"}, "sched=constant does not read it"),
        ({"sched": "step"}, "set decay_steps"),
        ({"opt": "adamw", "momentum": 0.8}, "opt=adamw has betas of its own"),
        ({"opt": "adamw", "nesterov": False}, "opt=adamw has no momentum of this kind"),
        ({"model_ema": False, "model_ema_decay": 0.9}, "keeps no average"),
    ],
)
def test_what_would_have_no_effect_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        fit(**changed)


def test_the_default_rate_is_that_of_the_optimiser() -> None:
    assert (fit().lr, fit(opt="adamw").lr, fit(opt="adamw", lr=0.3).lr) == (0.1, 0.001, 0.3)


@pytest.mark.parametrize("changed", [{}, {"opt": "adamw"}, {"sched": "step", "decay_steps": [4]}, {"model_ema": False}])
def test_resolved_settings_can_be_read_again(changed: dict[str, Any]) -> None:
    settings = fit(**changed)
    assert FitSettings.model_validate(yaml.safe_load(dump(settings))) == settings
