"""Recipes by name: what the settings allow, what is there, and what each refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.recipes.registry import AnyRecipe, SelfTrainSettings
from engine.settings.block import SettingsError, blocks_of, parse, tag_of
from tests.small_run import run_tree

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


NAMES = {tag_of(recipe) for recipe in blocks_of(AnyRecipe)}


def test_every_recipe_has_its_name_and_a_config() -> None:
    assert len(NAMES) == len(blocks_of(AnyRecipe)) == 16
    trees = [yaml.safe_load(path.read_text()) for path in CONFIGS.glob("*.yaml")]
    recipes = [tree["recipe"] for tree in trees if "recipe" in tree]
    with_config = {recipe if isinstance(recipe, str) else recipe["name"] for recipe in recipes}
    assert NAMES - with_config == {"supervised", "threshold"}, "those two are one word away from folders.yaml"


FIT = {"steps": 1, "batch": {"labelled": 1}}


def billion(**changed: Any) -> dict[str, Any]:
    return run_tree(
        **{
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
    )


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"student": FIT}, r"student\.batch=\{pseudo"),
        ({"student": None}, "set fits.student"),
        ({"finetune": None}, "set fits.finetune"),
        ({"data": {"labelled": "l"}}, r"set data\.pool"),
        ({"warm_start": True}, "recipe.warm_start: belongs to noisy_student, threshold, clean_labels"),
        ({"select": {"targets": "hard"}}, "per_class"),
        ({"select": {"per_class": 5, "targets": "soft"}}, r"select\.targets=hard"),
    ],
)
def test_billion_scale_refuses_what_is_another_method(changed: dict[str, Any], told: str) -> None:
    parse(SelfTrainSettings, billion(), "test")
    with pytest.raises(SettingsError, match=told):
        parse(SelfTrainSettings, billion(**changed), "test")
    if "warm_start" not in changed:
        parse(SelfTrainSettings, billion(**changed, generations=0), "only the teacher")
