"""Tiny networks under timm's registry, and batches without a disk, for tests of objectives."""

from typing import Any

import numpy as np
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.objective import Context
from engine.settings.model import ModelSettings
from tests.fit.sets import fit_settings


class Pixels(nn.Module):
    """Linear in the pixels, or with one hidden layer where `hidden` is given; batch norm where wanted."""

    def __init__(
        self, num_classes: int = 4, in_chans: int = 3, side: int = 4, hidden: int = 0, norm: bool = False, **_: Any
    ) -> None:
        super().__init__()
        inputs = in_chans * side * side
        body: list[nn.Module] = [nn.Flatten()]
        if hidden:
            body += [nn.Linear(inputs, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), nn.Tanh()]
        self.num_classes, self.num_features = num_classes, hidden or inputs
        self.body = nn.Sequential(*body)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))


CFG = {"input_size": (3, 4, 4), "mean": (0.5,) * 3, "std": (0.25,) * 3, "classifier": "fc", "num_classes": 4}


default_cfgs = generate_default_cfgs({"pixels": CFG})  # timm looks for it in the module


@register_model
def pixels(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    return build_model_with_cfg(Pixels, "pixels", pretrained, **kwargs)


def context(objective: str, side: int = 4, names: tuple[str, ...] = tuple("abcd"), **changes: Any) -> Context:
    """On the CPU in fp32, a network of pixels unless `model` says otherwise."""
    model = ModelSettings(model="pixels", img_size=side, model_args={"side": side, **changes.pop("net", {})})
    model = changes.pop("model", model)
    settings = fit_settings(objective=objective, channels_last=False, **changes)
    return Context(torch.device("cpu"), settings, model, names)


def unlabelled(images: Tensor, seed: int = 0) -> Batch:
    number = len(images)
    return Batch(images, torch.zeros(number, 0, dtype=torch.int64), torch.zeros(number, 0), seeds(number, seed))


def labelled(images: Tensor, classes: Tensor, seed: int = 0) -> Batch:
    return Batch(images, classes[:, None], torch.ones(len(images), 1), seeds(len(images), seed))


def seeds(number: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, number).astype(np.uint64)


def noise(number: int, side: int = 4, seed: int = 0) -> Tensor:
    """Images of independent pixels: any quarter turn of them is as likely as they are."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (number, 3, side, side), dtype=np.uint8))
