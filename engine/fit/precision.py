"""fp32 or bfloat16 autocast for training: a rule, not a stopwatch, so that a noisy machine does not change a result.

On CPUs the rule is who multiplies bfloat16 faster than fp32: AMX tiles (2.6 times) and AMD's AVX-512 BF16 (1.9 times) do, Intel's AVX-512 BF16
alone is slower (tests/benchmarks/README.md).
"""

from dataclasses import dataclass
from typing import Literal

import torch

from engine.settings.fit import FitSettings

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class PrecisionChoice:
    """What was chosen and why."""

    precision: Precision
    reason: str


def choose_precision(settings: FitSettings, device: torch.device, cpu_gains: str | None) -> PrecisionChoice:
    """The precision of a fit on `device`: as set, else bfloat16 on GPUs and on CPUs that gain by it (`cpu_gains`: why this one does)."""
    if settings.amp != "auto":
        return PrecisionChoice("bf16" if settings.amp else "fp32", f"amp={settings.amp} was set")
    if device.type == "cuda":
        return PrecisionChoice("bf16", "a GPU")
    return PrecisionChoice("bf16", cpu_gains) if cpu_gains else PrecisionChoice("fp32", "a CPU with slow bfloat16")


def cpu_gains_from_bf16() -> str | None:
    """Why this CPU trains faster in bfloat16 than in fp32; None when it does not."""
    if torch.cpu._is_amx_tile_supported():
        return "a CPU with AMX"
    if torch.cpu._is_avx512_bf16_supported() and _is_amd():
        return "an AMD CPU with AVX-512 BF16"
    return None


def _is_amd() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return "AuthenticAMD" in file.read(4096)
    except FileNotFoundError:  # not Linux
        return False
