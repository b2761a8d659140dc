"""RandAugment of batches against PIL, one operation at a time, and combined."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from timm.data import auto_augment
from torch import Tensor

from engine.images.augment_levels import CUTOUT, OPERATIONS, OPS, PROBABILITY, TORCHVISION, Scale, ScaleName
from engine.images.counter_rng import uniforms
from engine.images.randaugment import DRAWS, FILL, RandAugment, apply_ops
from engine.tables.schema import IGNORE

GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
SIDE = 33
TORCHVISION_OPS = [OPS[op] for op in TORCHVISION.operations]


def pictures(count: int, side: int = SIDE) -> Tensor:
    """uint8 (count, 3, side, side): smooth colour gradients with grain, of unequal contrast, so that every operation has work."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    phase, slope = rng.uniform(0, 6, (count, 3, 1, 1)), rng.uniform(1, 5, (count, 3, 2, 1, 1))
    waves = np.sin(phase + slope[:, :, 0] * x + slope[:, :, 1] * y)
    contrast = rng.uniform(20, 110, (count, 1, 1, 1))
    grain = rng.normal(0, 6, waves.shape)
    return torch.from_numpy((128 + contrast * waves + grain).clip(0, 255).astype(np.uint8))


def run(
    op: str,
    images: Tensor,
    magnitude: float,
    sign: float = 1.0,
    mask: Tensor | None = None,
    scale: Scale = TORCHVISION,
) -> Tensor:
    result, count = images.clone(), len(images)
    ops = np.full(count, OPS.index(op))
    arguments = scale.arguments(ops, np.full(count, magnitude), np.full(count, sign), images.shape[-1])
    apply_ops(result, ops, arguments, mask, np.full((count, 2), 0.5))
    return result


def with_pil(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    changed = [np.asarray(change(Image.fromarray(image.permute(1, 2, 0).numpy()))) for image in images]
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)


def worst(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("op", ["Brightness", "Color", "Contrast", "Sharpness"])
@pytest.mark.parametrize("magnitude", [0.0, 4.0, 9.0, 27.0])
def test_enhancements_are_those_of_pil(op: str, magnitude: float, sign: float) -> None:
    images = pictures(12)
    factor = max(0.1, 1 + 0.09 * magnitude * sign)
    expected = with_pil(images, lambda image: getattr(ImageEnhance, op)(image).enhance(factor))
    assert torch.equal(run(op, images, magnitude, sign), expected)


@pytest.mark.parametrize(
    ("op", "magnitude", "change", "tolerance"),
    [
        ("Equalize", 9, ImageOps.equalize, 0),
        ("AutoContrast", 9, ImageOps.autocontrast, 1),
        ("Posterize", 5, lambda image: ImageOps.posterize(image, 6), 0),
        ("Posterize", 27, lambda image: ImageOps.posterize(image, 4), 0),
        ("Solarize", 5, lambda image: ImageOps.solarize(image, 128), 0),
        ("Solarize", 27, ImageOps.invert, 0),
        ("Identity", 9, lambda image: image, 0),
    ],
)
def test_other_colour_operations_are_those_of_pil(op: str, magnitude: float, change: Any, tolerance: int) -> None:
    images = pictures(12)
    images[0] = 77  # one value
    images[1, 0] = torch.arange(SIDE * SIDE).view(SIDE, SIDE) % 2 * 255
    images[2] = torch.randint(0, 256, images[2].shape, generator=torch.Generator().manual_seed(1))
    assert worst(run(op, images, magnitude), with_pil(images, change)) <= tolerance


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("magnitude", [4.0, 9.0, 20.0])
@pytest.mark.parametrize("op", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_geometry_is_that_of_pil(op: str, magnitude: float, sign: float) -> None:
    images = pictures(6)
    strength, middle = sign * magnitude / 10, SIDE / 2
    shift = round(0.45 * np.clip(strength, -1, 1) * SIDE)
    coefficients = {
        "ShearX": (1, 0.3 * strength, -0.3 * strength * middle, 0, 1, 0),
        "ShearY": (1, 0, 0, 0.3 * strength, 1, -0.3 * strength * middle),
        "TranslateX": (1, 0, shift, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, shift),
    }

    def change(image: Image.Image) -> Image.Image:
        bilinear, fill = Image.Resampling.BILINEAR, (FILL, FILL, FILL)
        if op == "Rotate":
            return image.rotate(30 * strength, bilinear, fillcolor=fill)
        return image.transform(image.size, Image.Transform.AFFINE, coefficients[op], bilinear, fillcolor=fill)

    expected, found = with_pil(images, change), run(op, images, magnitude, sign)
    assert worst(found, expected) <= 1
    assert ((found == FILL) & (expected == FILL)).float().mean() > 0.03
    if op.startswith("Translate"):
        assert torch.equal(found, expected)


def test_translations_copy_and_fill() -> None:
    images = pictures(3, 20)
    moved = run("TranslateX", images, 10.0)
    assert torch.equal(moved[..., :11], images[..., 9:])
    assert (moved[..., 11:] == FILL).all()


@pytest.mark.parametrize("op", [op for op in TORCHVISION_OPS if op not in ("AutoContrast", "Equalize")])
def test_magnitude_zero_changes_nothing(op: str) -> None:
    for side in (32, SIDE, 224):
        images = pictures(3, side)
        assert torch.equal(run(op, images, 0.0), images)


def test_the_operations_of_an_image_depend_only_on_its_seed() -> None:
    """Bit for bit the same alone, among others, in another order and with another global random state."""
    images, augment = pictures(64), RandAugment(3, 9.0)
    draws = uniforms(np.arange(64, dtype=np.uint64), DRAWS * 3)
    whole, _ = augment(images, draws)
    torch.manual_seed(1)
    assert torch.equal(augment(images, draws)[0], whole)
    for part in (slice(0, 1), slice(5, 6), slice(7, 40), slice(None, None, -1)):
        chosen = torch.arange(64)[part] if part.step is None else torch.arange(63, -1, -1)
        assert torch.equal(augment(images[chosen], draws[chosen.numpy()])[0], whole[chosen])
    assert torch.equal(images, pictures(64))


def test_operations_are_drawn_uniformly() -> None:
    draws = uniforms(np.arange(140_000, dtype=np.uint64), DRAWS)
    counts = np.bincount((draws[:, 0] * 14).astype(int), minlength=14)
    assert len(TORCHVISION.operations) == 14
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 40  # chi-square of 13 degrees: 40 at p = 1e-4
    images = pictures(1).repeat(4000, 1, 1, 1)
    changed = RandAugment(1, 9.0)(images, draws[:4000])[0]
    kinds = Counter(one.numpy().tobytes() for one in changed)
    assert len(kinds) == 5 + 2 * 9  # five without a sign, nine with
    assert min(kinds.values()) > 100


def test_the_mask_moves_with_the_image() -> None:
    """An image whose brightness is its mask stays aligned with it; colour operations do not change the mask."""
    shape = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
    shape[..., 8:25, 12:20] = 200
    for op in OPS[:-1]:
        for sign in (1.0, -1.0):
            mask = shape.clone()
            image = run(op, shape.repeat(1, 3, 1, 1), 9.0, sign, mask)
            if op not in GEOMETRIC:
                assert torch.equal(mask, shape)
                continue
            assert set(mask.unique().tolist()) <= {0, 200, IGNORE}
            assert (mask == IGNORE).any()
            inside = mask != IGNORE
            agreement = ((image[:, :1] > 100) == (mask == 200))[inside].float().mean()
            assert agreement > 0.96
            assert (image[:, :1][~inside] == FILL).all()


def test_uniform_strengths_are_those_of_single_magnitudes() -> None:
    """With uniform strengths, each image equals the result of its own magnitude."""
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    draws = np.random.default_rng(5).random((64, DRAWS))
    together, _ = RandAugment(1, 9.0, uniform=True)(images, draws)
    magnitudes = 9.0 * np.abs(2 * draws[:, 1] - 1)
    for i, magnitude in enumerate(magnitudes):
        alone, _ = RandAugment(1, float(magnitude))(images[i : i + 1], draws[i : i + 1])
        assert torch.equal(together[i], alone[0])
    assert np.ptp(magnitudes) > 8


INCREASING = {"Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness"}
TIMM: dict[str, Any] = {"translate_pct": 0.45, "img_mean": (FILL, FILL, FILL)}


def timm_name(op: str) -> str:
    return f"{op}Increasing" if op in INCREASING else f"{op}Rel" if op.startswith("Translate") else op


@pytest.mark.parametrize("magnitude", [0.0, 3.0, 9.0, 10.0, 27.0])
@pytest.mark.parametrize("op", [OPS[op] for op in OPERATIONS["timm"]])
def test_the_arguments_of_the_timm_scale_are_those_of_timm(op: str, magnitude: float) -> None:
    """timm ends at 10 by itself; both signs occur where it draws one."""
    random.seed(0)
    level = auto_augment.LEVEL_TO_ARG[timm_name(op)]
    theirs = {float(level(min(magnitude, 10.0), TIMM)[0]) for _ in range(20)} if level is not None else {0.0}
    if op == "Posterize":
        theirs = {max(1.0, bits) for bits in theirs}  # 0 bits, which Pillow refuses
    if op.startswith("Translate"):
        theirs = {round(share * SIDE) for share in theirs}
    ours = {
        float(Scale("timm").arguments(np.array([OPS.index(op)]), np.array([magnitude]), np.array([sign]), SIDE)[0])
        for sign in (1.0, -1.0)
    }
    assert sorted(ours) == pytest.approx(sorted(theirs), abs=1e-9)


@pytest.mark.parametrize("magnitude", [0.0, 3.0, 9.0, 10.0, 27.0])
@pytest.mark.parametrize("op", [OPS[op] for op in OPERATIONS["timm"] if OPS[op] not in GEOMETRIC])
def test_the_colours_of_the_timm_scale_are_those_of_timm(op: str, magnitude: float) -> None:
    """timm's own operations on the same pictures, either sign."""
    images = pictures(6)
    if op == "Posterize" and magnitude >= 10:
        pytest.skip("timm asks Pillow for 0 bits, which it refuses")
    ours = [run(op, images, magnitude, sign, scale=Scale("timm")) for sign in (1.0, -1.0)]
    random.seed(0)
    theirs = with_pil(images, auto_augment.AugmentOp(timm_name(op), prob=1.0, magnitude=magnitude, hparams=TIMM))
    tolerance = 1 if op == "AutoContrast" else 0
    for place, image in enumerate(theirs):
        assert min(worst(one[place], image) for one in ours) <= tolerance


NOISY_STUDENT: list[tuple[str, float, float]] = [
    ("Rotate", 27, 81),
    ("ShearX", 27, 0.81),
    ("TranslateX", 27, 270),
    ("Brightness", 27, 4.96),
    ("Color", 6, 1.18),
    ("Contrast", 0, 0.1),
    ("Sharpness", 10, 1.9),
    ("Posterize", 6, 2),
    ("Posterize", 10, 4),
    ("Posterize", 27, 8),
    ("Solarize", 6, 153),
    ("Solarize", 27, 691),
    ("SolarizeAdd", 10, 110),
    ("Cutout", 6, 24),
    ("Cutout", 27, 108),
]
"""(operation, magnitude, argument) of google-research/noisystudent, autoaugment.py."""


@pytest.mark.parametrize(("op", "magnitude", "argument"), NOISY_STUDENT)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_tf_scale_is_that_of_noisy_student(op: str, magnitude: float, argument: float, sign: float) -> None:
    """Signs turn rotation, shear and translation alone: brightness grows and never falls."""
    ops = np.array([OPS.index(op)])
    found = Scale("tf").arguments(ops, np.array([magnitude]), np.array([sign]), 600)
    assert found[0] == pytest.approx(argument * (sign if op in GEOMETRIC else 1))


def test_what_tensorflow_leaves_undefined_changes_nothing() -> None:
    """10 of 8 bits, values from 691 of 255; at magnitude 10 solarisation is over, where the other scales invert everything."""
    images = pictures(4)
    for op, magnitude in (("Posterize", 27.0), ("Solarize", 27.0), ("Solarize", 10.0)):
        assert torch.equal(run(op, images, magnitude, scale=Scale("tf")), images)


def test_the_noise_of_the_largest_networks_is_never_a_black_image() -> None:
    """Brightness at magnitude 27 was 0.1 half of the time."""
    images = pictures(200, 32).clamp(min=60)
    augment = RandAugment(1, 27.0, scale=Scale("tf", cutout=0))
    changed, _ = augment(images, uniforms(np.arange(200, dtype=np.uint64), augment.draws))
    assert changed.flatten(1).float().mean(1).min() > 20


@pytest.mark.parametrize(("name", "count"), [("torchvision", 14), ("timm", 15), ("tf", 16)])
def test_each_scale_draws_its_own_operations(name: ScaleName, count: int) -> None:
    assert len(set(Scale(name).operations)) == count
    assert (CUTOUT in Scale("tf", cutout=0).operations) is False


@pytest.mark.parametrize(("scale", "probability"), [("timm", None), ("tf", 0.5), ("torchvision", 0.25)])
def test_operations_are_applied_with_their_probability(scale: ScaleName, probability: float | None) -> None:
    augment = RandAugment(1, 9.0, scale=Scale(scale), probability=probability)
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8).repeat(4000, 1, 1, 1)
    changed, _ = augment(images, uniforms(np.arange(4000, dtype=np.uint64), augment.draws))
    expected = PROBABILITY[scale] if probability is None else probability
    idle = 1 / 14 if scale == "torchvision" else 0.0
    share = float((changed != images).flatten(1).any(1).float().mean())
    assert share == pytest.approx(expected * (1 - idle), abs=0.04)


def test_cutout_is_a_square_of_twice_the_level_around_its_centre() -> None:
    images = torch.full((1, 3, 40, 40), 7, dtype=torch.uint8)
    changed = run("Cutout", images, 2.0, scale=Scale("tf"))
    assert int((changed[0, 0] == FILL).sum()) == 16 * 16
    assert (changed[0, :, 12:28, 12:28] == FILL).all()
