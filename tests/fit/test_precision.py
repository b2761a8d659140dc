"""Precision is a rule: the same settings on the same kind of machine give the same answer, whatever else the machine does."""

import pytest
import torch

from engine.fit.precision import choose_precision
from engine.settings.fit import FitSettings


@pytest.mark.parametrize(
    ("amp", "device", "cpu_gains", "precision", "reason"),
    [
        ("auto", "cuda", None, "bf16", "a GPU"),
        ("auto", "cpu", "a CPU with AMX", "bf16", "a CPU with AMX"),
        ("auto", "cpu", None, "fp32", "a CPU with slow bfloat16"),
        (True, "cpu", None, "bf16", "amp=True was set"),
        (False, "cuda", "a CPU with AMX", "fp32", "amp=False was set"),
    ],
)
def test_choice_and_reason(amp: bool, device: str, cpu_gains: str | None, precision: str, reason: str) -> None:
    settings = FitSettings.model_validate({"steps": 1, "batch": {"labelled": 1}, "amp": amp})
    choice = choose_precision(settings, torch.device(device), cpu_gains)
    assert (choice.precision, choice.reason) == (precision, reason)
