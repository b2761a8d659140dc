"""Random resized crops against torchvision's law and Pillow's pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop

from engine.images.crops import RandomCrop, draw_box
from tests.images.making import picture

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def draws(count: int, first: int = 0) -> np.ndarray:
    return RandomCrop(8, SCALE).draws(np.arange(first, first + count, dtype=np.uint64))


@pytest.mark.parametrize(("width", "height"), [(400, 300), (300, 500), (2000, 300)])
def test_boxes_follow_torchvisions_law_over_the_whole_picture(width: int, height: int) -> None:
    ours = np.array([draw_box(row, width, height, SCALE, RATIO) for row in draws(6000)])
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= width).all()
    assert (ours[:, 1] + ours[:, 3] <= height).all()
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(SCALE), list(RATIO)) for _ in range(6000)])
    for law in (lambda box: box[:, 2] * box[:, 3] / (width * height), lambda box: np.log(box[:, 2] / box[:, 3])):
        mine, other = law(ours), law(theirs[:, [1, 0, 3, 2]])
        assert ks_2samp(mine, other).pvalue > 1e-3
    if max(width, height) > 2 * min(width, height):
        return  # where no box fits, the central one is taken
    for side, length in ((0, width - ours[:, 2]), (1, height - ours[:, 3])):
        free = length > 20
        assert kstest(ours[free, side] / length[free], "uniform").pvalue > 1e-3, (
            "positions are uniform where there is room"
        )


def test_the_smallest_crop_of_a_reduced_picture_still_fills_the_view() -> None:
    crop = RandomCrop(32, (0.08, 1.0))
    assert crop.short_side == 131
    short = [min(draw_box(row, 175, 131, SCALE, RATIO)[2:]) for row in draws(2000)]
    assert min(short) >= 32
    assert RandomCrop(32).short_side == 32


def test_the_borders_of_a_wide_picture_are_seen() -> None:
    boxes = np.array([draw_box(row, 400, 300, SCALE, RATIO) for row in draws(2000)])
    assert boxes[:, 0].min() < 10
    assert (boxes[:, 0] + boxes[:, 2]).max() > 390, "a square cut out beforehand ends at 350"


def test_a_small_crop_keeps_the_detail_of_the_original() -> None:
    """An 8 % crop of a fine pattern equals Pillow's crop and antialiased resize of the original."""
    large = np.asarray(picture(3, 640, 480)).copy()
    large[:, ::4] = 255 - large[:, ::4]
    crop = RandomCrop(64, (0.08, 0.0801))
    for row in draws(20):
        box = draw_box(row, 640, 480, (0.08, 0.0801), RATIO)
        corners = (box.left, box.top, box.left + box.width, box.top + box.height)
        expected = Image.fromarray(large).crop(corners).resize((64, 64), Image.Resampling.BILINEAR)
        found = crop.image(large, row).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(found - np.asarray(expected).astype(int)).max() <= 2


def test_a_disc_has_the_size_that_its_box_gives_it() -> None:
    y, x = np.mgrid[:300, :400]
    disc = ((np.hypot(x - 200, y - 150) < 60) * 255).astype(np.uint8)
    row = draws(1)[0]
    whole = RandomCrop(100, (1.0, 1.0), (4 / 3, 4 / 3)).image(np.repeat(disc[:, :, None], 3, 2), row)[0].numpy() > 127
    assert whole.any(1).sum() == pytest.approx(120 * 100 / 300, abs=1), "height, the box being the whole picture"
    assert whole.any(0).sum() == pytest.approx(120 * 100 / 400, abs=1)
    plain = RandomCrop(100).image(np.repeat(disc[:, :, None], 3, 2), row)[0].numpy() > 127
    for axis in (0, 1):
        assert plain.any(axis).sum() == pytest.approx(120 * 100 / 300, abs=1), "as evaluation sees it"


def test_a_mask_goes_the_same_way() -> None:
    large = np.array(picture(5, 90, 60))
    mask = (large[:, :, 0] > 128).astype(np.uint8)
    crop = RandomCrop(48, (0.3, 1.0))
    for row in draws(10):
        shown, moved = crop.image(large, row), crop.mask(mask, row)
        assert ((shown[:1] > 128) == (moved == 1)).float().mean() > 0.95


def test_views_of_one_image_have_crops_of_their_own_and_seeds_decide_alone() -> None:
    seeds = np.arange(5, dtype=np.uint64)
    first, second = RandomCrop(8, SCALE), RandomCrop(8, SCALE, view=2)
    assert not np.array_equal(first.draws(seeds), second.draws(seeds))
    np.testing.assert_array_equal(first.draws(seeds[2:3]), first.draws(seeds)[2:3])


def test_where_no_box_fits_the_largest_central_one_is_taken() -> None:
    box = draw_box(draws(1)[0], 1000, 20, (1.0, 1.0), RATIO)
    assert box == ((1000 - 27) // 2, 0, 27, 20)
