"""Views: exact where they copy, in step with their masks, and a function of the seed alone."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.images.randaugment import FILL
from engine.images.views import View
from engine.settings.fit import NoiseSettings
from engine.tables.schema import IGNORE

MEAN, STD = (0.49, 0.48, 0.44), (0.25, 0.24, 0.26)
EVERYTHING = NoiseSettings(hflip=0.5, pad=4, aa_num_ops=2, aa_magnitude=9, cutout=10)


def pictures(count: int, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def smooth(count: int, side: int) -> Tensor:
    """Pictures without fine structure, so that every decent interpolation agrees."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255).to(torch.uint8)


def seeds(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.uint64)


def view(**noise: Any) -> View:
    return View(NoiseSettings(**{"hflip": 0.0, **noise}), 32, MEAN, STD)


def test_a_plain_view_normalises_and_nothing_else() -> None:
    images = pictures(3)
    seen, mask = View(None, 32, MEAN, STD)(images)
    expected = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(seen, expected)
    assert mask is None
    torch.testing.assert_close(view()(images, seeds(3))[0], seen, rtol=0, atol=0)


def test_a_plain_view_resizes_with_antialiasing() -> None:
    images = pictures(3, 96)
    seen, _ = View(None, 32, MEAN, STD).pixels(images)
    expected = [
        np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32, 32), Image.Resampling.BILINEAR))
        for image in images
    ]
    assert (seen.int() - torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2).int()).abs().max() <= 1


def test_mirror_and_translation_copy_pixels() -> None:
    """Every view is one of the 2 x 81 windows of the reflected image, all of which occur, evenly."""
    pad, image = 4, pictures(1)
    copies = image.expand(8000, -1, -1, -1)
    seen, _ = view(hflip=0.5, pad=pad).pixels(copies, seeds(8000))
    windows = {}
    for name, source in (("plain", image), ("mirror", image.flip(3))):
        reflected = F.pad(source.float(), [pad] * 4, mode="reflect").to(torch.uint8)
        for top in range(2 * pad + 1):
            for left in range(2 * pad + 1):
                windows[reflected[0, :, top : top + 32, left : left + 32].numpy().tobytes()] = (name, top, left)
    found = [windows[one.numpy().tobytes()] for one in seen]
    counts = np.array(list(Counter(found).values()))
    assert len(counts) == 162
    assert ((counts - 8000 / 162) ** 2 / (8000 / 162)).sum() < 240  # chi-square of 161 degrees: 234 at p = 1e-4


def test_the_mask_of_a_translation_is_ignored_beyond_the_border() -> None:
    images = pictures(50)
    mask = images[:, :1] % 7
    seen, moved = view(hflip=0.5, pad=5).pixels(images, seeds(50), mask)
    assert moved is not None
    inside = moved != IGNORE
    assert torch.equal((seen[:, :1] % 7)[inside], moved[inside])
    outside_rows = (~inside).all(3).sum(2).flatten()
    outside_columns = (~inside).all(2).sum(2).flatten()
    assert outside_rows.max() == outside_columns.max() == 5
    assert torch.equal(
        (~inside).flatten(1).sum(1), 32 * (outside_rows + outside_columns) - outside_rows * outside_columns
    )


def test_hflip_says_how_often() -> None:
    images = pictures(1).expand(4000, -1, -1, -1)
    for share in (0.0, 0.25, 1.0):
        seen, _ = view(hflip=share).pixels(images, seeds(4000))
        mirrored = (seen == images.flip(3)).flatten(1).all(1).float().mean().item()
        assert mirrored == pytest.approx(share, abs=0.03)


def test_a_view_takes_no_random_crop() -> None:
    with pytest.raises(ValueError, match=r"Objective\.crops"):
        view(scale=(0.2, 1.0))


def test_cutout_is_one_grey_square_that_may_reach_outside() -> None:
    images = pictures(500) // 2
    seen, mask = view(cutout=10).pixels(images, seeds(500), images[:, :1])
    assert mask is not None
    assert torch.equal(mask, images[:, :1])
    hidden = (seen == FILL).all(1)
    assert torch.equal(seen[~hidden.unsqueeze(1).expand_as(seen)], images[~hidden.unsqueeze(1).expand_as(seen)])
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.flatten(1).sum(1), rows * columns)
    assert rows.max() == columns.max() == 10
    assert rows.min() == columns.min() == 5


@pytest.mark.parametrize("side", [32, 70, 120])
def test_a_view_depends_on_its_seed_alone(side: int) -> None:
    """Bit for bit the same alone, in another batch and beside another global random state."""
    images, mask = pictures(40, side), pictures(40, side)[:, :1] % 3
    strong = View(EVERYTHING, 32, MEAN, STD)
    whole, whole_mask = strong(images, seeds(40), mask)
    assert whole_mask is not None
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    for part in ([0], [17], list(range(5, 31)), list(range(39, -1, -1))):
        seen, moved = strong(images[part], seeds(40)[part], mask[part])
        assert moved is not None
        assert torch.equal(seen, whole[part])
        assert torch.equal(moved, whole_mask[part])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(strong(images, seeds(40, 1))[0], whole)
    assert torch.equal(images, pictures(40, side))


def test_noise_does_not_move_the_draws_of_other_noise() -> None:
    images = pictures(200)
    weak, _ = view(hflip=0.5, pad=4).pixels(images, seeds(200))
    hidden, _ = view(hflip=0.5, pad=4, cutout=8).pixels(images, seeds(200))
    assert torch.equal(hidden[hidden != FILL], weak[hidden != FILL])


def test_what_a_view_cannot_take_is_told() -> None:
    with pytest.raises(ValueError, match=r"takes square uint8 images \(B, 3, H, H\), not torch.float32"):
        view()(pictures(2).float(), seeds(2))
    with pytest.raises(ValueError, match="one seed an image: 2 images, 3 seeds"):
        view()(pictures(2), seeds(3))
    with pytest.raises(ValueError, match="pad=32 reflects more than an image has: at most 31"):
        view(pad=32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_shows_nearly_the_same() -> None:
    images, mask = smooth(64, 48), (smooth(64, 48)[:, :1] > 128).to(torch.uint8)
    strong = View(EVERYTHING, 32, MEAN, STD)
    there, there_mask = strong.pixels(images.cuda(), seeds(64), mask.cuda())
    here, here_mask = strong.pixels(images, seeds(64), mask)
    assert there_mask is not None
    assert here_mask is not None
    assert ((there.cpu().int() - here.int()).abs() > 2).float().mean() < 0.01
    assert (there_mask.cpu() != here_mask).float().mean() < 0.01


def test_a_translation_shows_grey_or_a_reflection_beyond_the_border() -> None:
    """Where the mask is IGNORE the image is grey; inside both modes copy the same pixels."""
    images = torch.randint(0, 127, (16, 3, 12, 12), dtype=torch.uint8)
    mask = torch.zeros(16, 1, 12, 12, dtype=torch.uint8)
    seeds = np.arange(16, dtype=np.uint64)
    shown = {}
    for mode in ("reflect", "grey"):
        noise = NoiseSettings(hflip=0, pad=4, pad_mode=mode)
        shown[mode], moved = View(noise, 12, (0, 0, 0), (1, 1, 1)).pixels(images, seeds, mask)
        assert moved is not None
        outside = (moved == IGNORE).expand(-1, 3, -1, -1)
    assert outside.any()
    assert (shown["grey"][outside] == FILL).all()
    assert torch.equal(shown["grey"][~outside], shown["reflect"][~outside])
    assert (shown["reflect"] < 127).all()
