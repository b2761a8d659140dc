"""A main job small enough for tests: digits, a tiny network, two generations."""

from pathlib import Path
from typing import Any

import yaml

from engine.recipes.registry import AnyRecipe, SelfTrainSettings
from engine.settings.block import blocks_of, parse, tag_of
from engine.settings.recipe import GenerationalSettings
from engine.settings.run import RunSettings


def small_tree(digits: Path, store: str, **changed: Any) -> dict[str, Any]:
    """Settings of the small job as a plain tree; `changed` replaces entries, by their flat names (`run_tree`)."""
    fit = {
        "steps": 40,
        "batch": {"labelled": 32},
        "noise": {"labelled": {"hflip": 0, "pad": 2}},
        "lr": 0.1,
        "amp": False,
        "model_ema_decay": 0.9,
        "checkpoint_every": 10,
        "log_every": 10,
    }
    student = {
        **fit,
        "batch": {"labelled": 16, "pseudo": 32},
        "noise": {"pseudo": {"hflip": 0, "pad": 2, "aa_num_ops": 1}},
    }
    flat: dict[str, Any] = {
        "run": "run",
        "store": store,
        **({} if changed.get("recipe") in WITHOUT_GENERATIONS else {"generations": 1}),
        "data": {
            "labelled": str(digits / "labelled"),
            "pool": str(digits / "pool.parquet"),
            "validation": str(digits / "validation"),
            "test": str(digits / "test"),
            "rows_per_shard": 16,
        },
        "teacher_model": {"model": "resnet8_cifar", "img_size": 16, "model_args": {"width": 8}},
        "teacher": fit,
        "student": student,
        "predict": {"top_p": 4, "batch_size": 16, "backend": "eager"},  # `auto` may choose differently in two stores
        "select": {"threshold": 0.3},
        "guard": {"enabled": False},  # forty steps make poor students
        "report": {"page": False},  # a second or two each; tests of the page make their own
        "cluster": {"train": {"cpus": 1}},
        **changed,
    }
    return run_tree(**flat)


WITHOUT_GENERATIONS = {
    tag_of(recipe) for recipe in blocks_of(AnyRecipe) if not issubclass(recipe, GenerationalSettings)
}


MODELS = {"teacher_model": "teacher", "student_model": "student"}
FITS = ("teacher", "student", "pretext", "finetune", "tagging")
OWN = (*RunSettings.model_fields, "search")


def run_tree(**flat: Any) -> dict[str, Any]:
    """A run's settings as a plain tree from flat names: networks and fits go to their groups, what belongs to no group to the recipe."""
    tree: dict[str, Any] = {"models": {}, "fits": {}, "recipe": {}}
    for name, value in flat.items():
        if name in MODELS:
            tree["models"][MODELS[name]] = value
        elif name in FITS:
            tree["fits"][name] = value
        elif name == "recipe":
            tree["recipe"] |= {"name": value}
        elif name in OWN:
            tree[name] = value
        else:
            tree["recipe"][name] = value
    return tree


def small_settings(digits: Path, store: str, **changed: Any) -> SelfTrainSettings:
    return parse(SelfTrainSettings, small_tree(digits, store, **changed), "small run")


def write_config(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path
