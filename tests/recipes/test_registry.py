"""Recipes by name: what the settings allow, what is there, and what each refuses."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from engine.recipes.registry import RECIPES
from engine.settings.block import SettingsError, parse
from engine.settings.recipe import REFUSED
from engine.settings.run import SelfTrainSettings

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


def test_every_recipe_has_its_name_its_needs_and_a_config() -> None:
    allowed = set(get_args(SelfTrainSettings.model_fields["recipe"].annotation))
    assert allowed == RECIPES.keys() == REFUSED.keys()
    with_config = {
        tree["recipe"] for path in CONFIGS.glob("*.yaml") if "recipe" in (tree := yaml.safe_load(path.read_text()))
    }
    assert allowed - with_config == {"supervised", "threshold"}, "those two are one word away from folders.yaml"


FIT = {"steps": 1, "batch": {"labelled": 1}}


def billion(**changed: Any) -> dict[str, Any]:
    return {
        "recipe": "billion_scale",
        "run": "r",
        "data": {"labelled": "l", "pool": "p"},
        "teacher_model": {"model": "resnet18"},
        "teacher": FIT,
        "student": {"steps": 1, "batch": {"pseudo": 1}},
        "finetune": FIT,
        "select": {"per_class": 5, "targets": "hard"},
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"student": FIT}, r"student\.batch=\{pseudo"),
        ({"student": None}, "set student"),
        ({"finetune": None}, "set finetune"),
        ({"data": {"labelled": "l"}}, r"set data\.pool"),
        ({"warm_start": True}, "from scratch"),
        ({"select": {"targets": "hard"}}, "per_class"),
        ({"select": {"per_class": 5, "targets": "soft"}}, r"select\.targets=hard"),
    ],
)
def test_billion_scale_refuses_what_is_another_method(changed: dict[str, Any], told: str) -> None:
    parse(SelfTrainSettings, billion(), "test")
    with pytest.raises(SettingsError, match=told):
        parse(SelfTrainSettings, billion(**changed), "test")
    parse(SelfTrainSettings, billion(**changed, generations=0), "only the teacher")
