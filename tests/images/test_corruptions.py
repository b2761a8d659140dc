"""Fifteen corruptions: each keeps the shape, is deterministic per image, and grows with severity; some have known answers."""

import numpy as np
import pytest
import torch

from engine.images import corruptions
from engine.images.corruptions import FAMILIES, SEVERITIES

SEED = b"\x07" * 16


def corrupt(image: torch.Tensor, family: str, severity: int, seed: bytes) -> torch.Tensor:
    """The corruption of an image with its channels first."""
    made = corruptions.corrupt(image.permute(1, 2, 0).numpy(), family, severity, seed)
    return torch.from_numpy(made).permute(2, 0, 1)


def picture(side: int = 32) -> torch.Tensor:
    """A synthetic photograph: smooth colours with edges."""
    y, x = np.mgrid[:side, :side] / side
    channels = [0.5 + 0.3 * np.sin(6 * x), 0.4 + 0.3 * (y > 0.5), 0.3 + 0.4 * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09)]
    return torch.from_numpy((np.stack(channels) * 255).astype(np.uint8))


def away(family: str, severity: int, side: int = 32) -> float:
    image = picture(side)
    return float((corrupt(image, family, severity, SEED).float() - image.float()).abs().mean())


def test_there_are_fifteen_families() -> None:
    assert len(FAMILIES) == 15


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", [16, 33])
def test_a_corruption_keeps_the_shape_and_is_deterministic(family: str, side: int) -> None:
    image = picture(side)
    for severity in SEVERITIES:
        made = corrupt(image, family, severity, SEED)
        assert (made.shape, made.dtype) == (image.shape, torch.uint8)
        assert torch.equal(made, corrupt(image, family, severity, SEED))
        assert not torch.equal(made, image)


@pytest.mark.parametrize("family", FAMILIES)
def test_severity_grows(family: str) -> None:
    far = [away(family, severity, 64) for severity in SEVERITIES]
    assert far[4] > 1.3 * far[0], far
    assert far[0] < 80, "the mildest leaves hardly anything"


def test_known_answers() -> None:
    grey = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    for family in (
        "contrast",
        "defocus_blur",
        "motion_blur",
        "zoom_blur",
        "glass_blur",
        "elastic_transform",
        "pixelate",
    ):
        for severity in (1, 5):
            made = corrupt(grey, family, severity, SEED)
            assert (made.int() - 100).abs().max() <= 1, f"{family} changed an even surface"
    assert corrupt(grey, "brightness", 2, SEED).unique().tolist() == [151]
    noise = corrupt(torch.full((3, 128, 128), 128, dtype=torch.uint8), "gaussian_noise", 3, SEED).float()
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.03)
    salt = corrupt(torch.full((3, 128, 128), 128, dtype=torch.uint8), "impulse_noise", 5, SEED)
    assert float(((salt == 0) | (salt == 255)).float().mean()) == pytest.approx(0.15, rel=0.05)
    photons = corrupt(torch.full((3, 128, 128), 128, dtype=torch.uint8), "shot_noise", 2, SEED).float() / 255
    assert photons.std() == pytest.approx(np.sqrt(0.502 / 100), rel=0.04)


def test_other_images_get_other_random_numbers() -> None:
    image = picture()
    assert not torch.equal(corrupt(image, "fog", 1, SEED), corrupt(image, "fog", 1, b"\x08" * 16))
