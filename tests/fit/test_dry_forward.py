"""What could only fail in the first forward or after the last step fails before the first."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.fit.worker import check_forward
from engine.models.build import build_model
from engine.models.checkpoint import load, save
from engine.settings.block import SettingsError
from engine.settings.model import ModelSettings

CPU = torch.device("cpu")


def test_weights_with_two_names_are_saved_and_read(tmp_path: Path) -> None:
    settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
    model = build_model(settings, 2)
    stages = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    first, second = next((a, b) for a, b in pairwise(stages) if a.weight.shape == b.weight.shape)
    second.weight = first.weight
    save(tmp_path, model, settings, ["cat", "dog"])
    again = load(tmp_path).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_a_network_of_timm_with_shared_weights_is_saved(tmp_path: Path) -> None:
    settings = ModelSettings(model="coat_tiny", img_size=224)
    save(tmp_path, build_model(settings, 2), settings, ["cat", "dog"])
    assert load(tmp_path).class_names == ["cat", "dog"]


@pytest.mark.parametrize("name", ["crossvit_tiny_240", "halonet26t"])
def test_a_network_that_cannot_run_at_the_size_is_refused(name: str) -> None:
    settings = ModelSettings(model=name, img_size=100)
    try:
        model = build_model(settings, 2)
    except ValueError as error:
        pytest.skip(f"refused when it is built: {error}")
    with pytest.raises(SettingsError, match=rf"model {name} cannot be run on images of img_size=100"):
        check_forward(model, settings, CPU)


def test_the_dry_forward_leaves_no_trace() -> None:
    settings = ModelSettings(model="resnet8_cifar", img_size=16, drop=0.2, model_args={"width": 8})
    model = build_model(settings, 2).train()
    frozen = next(one for one in model.modules() if isinstance(one, nn.BatchNorm2d)).eval()
    before, random = {name: one.clone() for name, one in model.state_dict().items()}, torch.random.get_rng_state()
    check_forward(model, settings, CPU)
    assert model.training
    assert not frozen.training
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
