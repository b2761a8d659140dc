"""Precision is a rule: the same settings on the same kind of machine give the same answer, whatever else the machine does."""

import pytest
import torch

from engine.fit.precision import choose_precision
from engine.settings import FitSettings


@pytest.mark.parametrize(
    ("amp", "device", "has_amx", "precision", "reason"),
    [
        ("auto", "cuda", False, "bf16", "a GPU"),
        ("auto", "cpu", True, "bf16", "a CPU with AMX"),
        ("auto", "cpu", False, "fp32", "a CPU without AMX"),
        (True, "cpu", False, "bf16", "amp=True was set"),
        (False, "cuda", True, "fp32", "amp=False was set"),
    ],
)
def test_choice_and_reason(amp: bool, device: str, has_amx: bool, precision: str, reason: str) -> None:
    settings = FitSettings.model_validate({"steps": 1, "batch": {"labelled": 1}, "amp": amp})
    choice = choose_precision(settings, torch.device(device), has_amx)
    assert (choice.precision, choice.reason) == (precision, reason)
