"""Networks by name and settings, and errors for settings that have no effect."""

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from engine.models.build import build_model, normalisation
from engine.settings.model import ModelSettings


@pytest.mark.parametrize(("name", "parameters"), [("wrn_28_2", 1_467_610), ("resnet8_cifar", 1_646_122)])
def test_own_networks_work_with_timm(name: str, parameters: int) -> None:
    model = build_model(ModelSettings(model=name, img_size=32), 10)
    assert sum(tensor.numel() for tensor in model.parameters()) == parameters
    images = torch.randn(2, 3, 32, 32)
    features = model.forward_features(images)  # type: ignore[operator]
    assert features.shape[:2] == (2, model.num_features)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.num_features)  # type: ignore[operator]
    assert model(images).shape == (2, 10)
    model.reset_classifier(4)  # type: ignore[operator]
    assert model(images).shape == (2, 4)
    model.reset_classifier(0)  # type: ignore[operator]
    assert model(images).shape == (2, model.num_features)


@pytest.mark.parametrize("name", ["wrn_28_2", "resnet8_cifar", "resnet10t", "test_vit", "test_efficientnet"])
def test_regularisation_reaches_the_network(name: str) -> None:
    model = build_model(ModelSettings(model=name, img_size=32, drop=0.35, drop_path=0.25), 10)
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert 0.2 <= max(rates) <= 0.25  # efficientnets stop one block short
    assert rates == sorted(rates)
    head = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p == 0.35]
    assert head or model.drop_rate == 0.35
    assert model.training


def test_noise_acts_in_training_only() -> None:
    model = build_model(ModelSettings(model="wrn_28_2", img_size=32, drop=0.5, drop_path=0.5), 10)
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_stochastic_depth_keeps_the_expectation_and_grows_with_depth() -> None:
    model = build_model(ModelSettings(model="wrn_28_2", img_size=32, drop_path=0.5), 10).train()
    paths = [module for module in model.modules() if isinstance(module, DropPath)]
    rates = [path.drop_prob for path in paths]
    assert rates == sorted(rates)
    assert rates[-1] == 0.5
    images = 20_000
    for path in paths:
        mean = float(path(torch.ones(images, 1, 1, 1)).mean())
        spread = (path.drop_prob / (1 - path.drop_prob) / images) ** 0.5
        assert abs(mean - 1) <= 4 * spread


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "resnet50x"}, "unknown to timm .*; did you mean resnet50"),
        ({"model": "wrn_28_3"}, "did you mean wrn_28_2"),
        ({"model": "qqqqqqq"}, "timm.list_models"),
        ({"model": "resnet18.a9_in1k"}, "no weights of that tag; did you mean resnet18.a"),
        ({"model": "hf-hub:timm/resnet18"}, "is a location, not an architecture"),
        ({"model": "vgg11", "drop_path": 0.1}, "vgg11 has no drop_path, so drop_path=0.1 would have no effect"),
        ({"model": "resnet10t", "model_args": {"depth": 3}}, "model_args {'depth': 3}.*unexpected"),
        (
            {"model": "resnet10t", "model_args": {"drop_rate": 0.3}},
            "model_args.drop_rate: use the setting drop instead",
        ),
        ({"model": "wrn_28_2", "pretrained": True}, "No pretrained weights"),
    ],
)
def test_settings_that_cannot_be_built_raise(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(
            ModelSettings(img_size=32, **settings) if "img_size" not in settings else ModelSettings(**settings), 10
        )


def test_img_size_is_passed_to_architectures_that_need_it() -> None:
    assert build_model(ModelSettings(model="test_vit", img_size=48), 10)(torch.randn(1, 3, 48, 48)).shape == (1, 10)
    assert build_model(ModelSettings(model="resnet10t", img_size=48), 10)(torch.randn(1, 3, 48, 48)).shape == (1, 10)


def test_normalisation_prefers_the_settings() -> None:
    settings = ModelSettings(model="test_vit", img_size=32, mean=(0.1, 0.2, 0.3))
    model = build_model(settings, 10)
    found = normalisation(settings, model)
    assert found.mean == (0.1, 0.2, 0.3)
    assert found.std == tuple(model.pretrained_cfg["std"])  # type: ignore[index]
    assert found.crop_pct == model.pretrained_cfg["crop_pct"]  # type: ignore[index]
