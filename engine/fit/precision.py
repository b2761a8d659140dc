"""fp32 or bfloat16 autocast for training: decided by a measurement on the device that trains, recorded in the step's plan and obeyed ever after.

A CPU flag does not tell: with AMX tiles bfloat16 trains 2.5 times faster, with AVX-512 BF16 alone it is slower than fp32.
"""

import time
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from engine.models.build import build
from engine.settings import FitSettings, ModelSettings

Precision = Literal["fp32", "bf16"]
GAIN = 1.15
"""How much faster bfloat16 has to be before its rounding is accepted."""
BATCH, ROUNDS = 32, 3


@dataclass(frozen=True)
class PrecisionChoice:
    """What was chosen and why."""

    precision: Precision
    reason: str


def choose_precision(
    settings: FitSettings, model: ModelSettings, num_classes: int, device: torch.device
) -> PrecisionChoice:
    """The precision for a fit on `device`: as set, else bfloat16 on GPUs, and on a CPU whichever trains this network faster."""
    if settings.amp != "auto":
        return PrecisionChoice("bf16" if settings.amp else "fp32", f"amp={settings.amp} was set")
    if device.type == "cuda":
        return PrecisionChoice("bf16", "a GPU")
    gain = bf16_gain(build(model, num_classes), model.img_size)
    return PrecisionChoice(
        "bf16" if gain > GAIN else "fp32", f"bfloat16 trains at {gain:.2f} times fp32's speed on this CPU"
    )


def bf16_gain(model: nn.Module, img_size: int) -> float:
    """Speed of a training step under bfloat16 autocast on this CPU, in multiples of fp32's; best of interleaved rounds."""
    model = model.train().to(memory_format=torch.channels_last)
    images = torch.rand(BATCH, 3, img_size, img_size).contiguous(memory_format=torch.channels_last)
    best = {False: float("inf"), True: float("inf")}
    for _ in range(1 + ROUNDS):  # the first round warms up, and cannot be the best by luck: it is the slowest
        for enabled in best:
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = model(images).float().square().mean()
            loss.backward()
            best[enabled] = min(best[enabled], time.perf_counter() - started)
    return best[False] / best[True]
