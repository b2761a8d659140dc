"""Optimisers as the settings ask for them; an objective with several models makes one each."""

from typing import Any

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from engine.settings.block import SettingsError
from engine.settings.fit import WITH_MOMENTUM, FitSettings


def optimiser(model: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    """SGD, AdamW, or another of timm's; weight decay spares biases, norms and what the architecture exempts (timm's convention).

    With `layer_decay` each of timm's layer groups learns at that share of the rate of the group after it.
    """
    named: Any = getattr(model, "no_weight_decay", tuple)  # timm's name for it
    if settings.layer_decay < 1:
        groups = param_groups_layer_decay(model, settings.weight_decay, named(), layer_decay=settings.layer_decay)
    else:
        groups = param_groups_weight_decay(model, settings.weight_decay, no_weight_decay_list=named())
    if settings.opt == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    if settings.opt != "sgd":
        momentum = {"momentum": settings.momentum} if settings.opt in WITH_MOMENTUM else {}
        options: Any = {**momentum, **settings.opt_args}
        try:
            return create_optimizer_v2(groups, settings.opt, lr=settings.lr, weight_decay=0.0, **options)
        except TypeError as error:
            raise SettingsError(
                f"opt={settings.opt} cannot be made with opt_args={settings.opt_args}: {error}"
            ) from None
    nesterov = settings.nesterov and settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> float:
    """Set the learning rate and return it; a parameter group may scale it by its `lr_scale` (discriminative rates)."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    return rate
