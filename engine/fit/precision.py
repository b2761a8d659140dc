"""fp32 or bfloat16 autocast for training: a rule, not a stopwatch, so that a noisy machine does not change a result.

On CPUs the rule is AMX: with its bfloat16 tiles a step is about 2.5 times faster than in fp32, with AVX-512 BF16 alone it is slower
(tests/benchmarks/README.md).
"""

from dataclasses import dataclass
from typing import Literal

import torch

from engine.settings import FitSettings

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class PrecisionChoice:
    """What was chosen and why."""

    precision: Precision
    reason: str


def choose_precision(settings: FitSettings, device: torch.device, has_amx: bool) -> PrecisionChoice:
    """The precision of a fit on `device`: as set, else bfloat16 on GPUs and on CPUs with AMX."""
    if settings.amp != "auto":
        return PrecisionChoice("bf16" if settings.amp else "fp32", f"amp={settings.amp} was set")
    if device.type == "cuda":
        return PrecisionChoice("bf16", "a GPU")
    return PrecisionChoice("bf16", "a CPU with AMX") if has_amx else PrecisionChoice("fp32", "a CPU without AMX")


def cpu_has_amx() -> bool:
    """Whether this CPU multiplies bfloat16 in tiles."""
    return bool(torch.cpu._is_amx_tile_supported())
