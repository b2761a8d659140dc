"""Initial weights of another image size: position embeddings are resized as timm does, and weights that hardly fit are refused."""

from pathlib import Path

import pytest
import timm
import torch

from engine.models.build import build_model, has_fixed_size
from engine.models.checkpoint import initialise, save
from engine.settings.model import ModelSettings

NAMES = ["cat", "dog"]


def test_position_embeddings_are_those_that_timm_makes(tmp_path: Path) -> None:
    small = ModelSettings(model="test_vit", img_size=48)
    save(tmp_path, build_model(small, 2), small, NAMES)
    large = small.model_copy(update={"img_size": 96})
    model = build_model(large, 2)
    report = initialise(model, tmp_path, NAMES)
    assert report.mismatched == report.missing == []
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=96)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_weights_that_hardly_fit_are_refused(tmp_path: Path) -> None:
    """One stem in common was enough to start from."""
    shallow = ModelSettings(model="resnet18", img_size=32)
    save(tmp_path, build_model(shallow, 2), shallow, NAMES)
    with pytest.raises(ValueError, match=r"does not fit this model, of whose weights it has \d+%"):
        initialise(build_model(ModelSettings(model="resnet50", img_size=32), 2), tmp_path, NAMES)


def test_which_networks_depend_on_their_image_size() -> None:
    names = ("test_vit", "deit_tiny_patch16_224", "mixer_s16_224", "resnet18", "resnet8_cifar")
    assert [has_fixed_size(name) for name in names] == [True, True, True, False, False]
