"""A small run of the recipe `probe`: digits, and a network whose weights nobody trained."""

from pathlib import Path
from typing import Any

import torch

from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import parse
from engine.settings.model import ModelSettings

NETWORK = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})


def put_network(folder: Path, classes: int = 5) -> Path:
    """A model folder with random weights and running statistics that are no one's default."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build_model(NETWORK, classes)
        network.train()
        for _ in range(3):
            network(torch.randn(16, 3, 16, 16))
    save(folder, network.eval(), NETWORK, [f"old {c}" for c in range(classes)])
    return folder


def probe_tree(digits: Path, store: str, backbone: Path, **recipe: Any) -> dict[str, Any]:
    """Settings of the small run as a plain tree; `recipe` replaces options of the recipe."""
    return {
        "run": "run",
        "store": store,
        "recipe": {"name": "probe", "generations": 1, "backbone": str(backbone), **recipe},
        "data": {
            "labelled": str(digits / "labelled"),
            "pool": str(digits / "pool.parquet"),
            "validation": str(digits / "validation"),
            "test": str(digits / "test"),
            "rows_per_shard": 256,
        },
        "models": {"teacher": NETWORK.model_dump(exclude_defaults=True)},
        "predict": {"top_p": 4},
        "select": {"threshold": 0.5, "targets": "hard"},
    }


def probe_settings(digits: Path, store: str, backbone: Path, **recipe: Any) -> SelfTrainSettings:
    return parse(SelfTrainSettings, probe_tree(digits, store, backbone, **recipe), "probe run")
