"""A main job small enough for tests: digits, a tiny network, two generations."""

from pathlib import Path
from typing import Any

import yaml

from engine.settings.block import parse
from engine.settings.run import SelfTrainSettings


def small_tree(digits: Path, store: str, **changed: Any) -> dict[str, Any]:
    """Settings of the small job as a plain tree; `changed` replaces top-level entries."""
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
    return {
        "recipe": "noisy_student",
        "run": "run",
        "store": store,
        "generations": 1,
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
        "cluster": {"train_cpus": 1},
        **changed,
    }


def small_settings(digits: Path, store: str, **changed: Any) -> SelfTrainSettings:
    return parse(SelfTrainSettings, small_tree(digits, store, **changed), "small run")


def write_config(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path
