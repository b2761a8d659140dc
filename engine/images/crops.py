"""Random resized crops of whole pictures: taken from the original and resampled once, as torchvision's and timm's RandomResizedCrop do.

A crop follows from the image's own seed and size alone (engine.images.counter_rng), like every other noise of a view.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.images.counter_rng import uniforms, view_seeds
from engine.images.decode import Frame, square
from engine.settings.fit import NoiseSettings

TRIES = 10
"""Boxes drawn before the largest central one is taken, as in torchvision's RandomResizedCrop."""
FIRST = 5
"""The first of an image's random numbers that crops draw from; those before it belong to other noise (engine.images.views)."""
LAST = FIRST + 4 * TRIES


class Box(NamedTuple):
    """A box in pixels of the picture."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class RandomCrop:
    """The crop of one view. `scale`: range of the area's share (None: no random crop, but the `plain` frame); `ratio`: range of width / height;
    `view`: number of the view, whose seeds the draws come from; `plain`: default: the whole shorter side."""

    size: int
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    view: int = 0
    plain: Frame | None = None

    @classmethod
    def of(cls, noise: NoiseSettings, frame: Frame, view: int = 0) -> "RandomCrop":
        return cls(frame.img_size, noise.scale, noise.ratio, view, frame)

    @property
    def frame(self) -> Frame:
        return self.plain or Frame(self.size)

    @property
    def short_side(self) -> int:
        """Shorter side in pixels of a picture of which the smallest and narrowest allowed crop still has `size` pixels a side."""
        if self.scale is None:
            return math.ceil(self.size / self.frame.crop_pct)
        return math.ceil(self.size / math.sqrt(self.scale[0] * min(self.ratio[0], 1 / self.ratio[1])))

    def draws(self, seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
        """Uniform numbers (B, 4 * TRIES) for images with `seeds` uint64 (B,)."""
        return uniforms(view_seeds(seeds, self.view) if self.view else seeds, LAST)[:, FIRST:]

    def image(self, picture: npt.NDArray[np.uint8], draws: npt.NDArray[np.float64]) -> Tensor:
        """uint8 (3, S, S) of a picture uint8 (h, w, 3): the box resized with antialiasing, or the plain frame. `draws`: its row of `draws`."""
        return self._resized(torch.from_numpy(picture)[None].permute(0, 3, 1, 2), draws, "bilinear")[0]

    def mask(self, mask: npt.NDArray[np.uint8], draws: npt.NDArray[np.float64]) -> Tensor:
        """uint8 (1, S, S) of a mask uint8 (h, w): the same box, nearest pixel."""
        return self._resized(torch.from_numpy(mask)[None, None], draws, "nearest-exact")[0]

    def _resized(self, picture: Tensor, draws: npt.NDArray[np.float64], mode: str) -> Tensor:
        if self.scale is None:
            return square(picture, self.frame, None if mode == "bilinear" else mode)
        box = draw_box(draws, picture.shape[3], picture.shape[2], self.scale, self.ratio)
        cut = picture[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
        if cut.shape[2:] == (self.size, self.size):
            return cut.clone()
        smooth = {} if mode == "nearest-exact" else {"antialias": True, "align_corners": False}
        return F.interpolate(cut, (self.size, self.size), mode=mode, **smooth)


def draw_box(
    draws: npt.NDArray[np.float64], width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """The box of one picture of `width` x `height` pixels: torchvision's law, in its rounding.

    Area uniform in `scale` of the picture's, width / height log-uniform in `ratio`, position uniform; drawn again while it does not fit; after TRIES
    the largest central box of an allowed ratio. draws: uniform (4 * TRIES,).
    """
    area, shape, x, y = draws.reshape(TRIES, 4).T
    target = width * height * (scale[0] + area * (scale[1] - scale[0]))
    aspect = np.exp(np.log(ratio[0]) + shape * np.log(ratio[1] / ratio[0]))
    wide, high = np.rint(np.sqrt(target * aspect)), np.rint(np.sqrt(target / aspect))
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    if not fits.any():
        return _central_box(width, height, ratio)
    first = int(fits.argmax())
    wide, high = int(wide[first]), int(high[first])
    return Box(int(x[first] * (width - wide + 1)), int(y[first] * (height - high + 1)), wide, high)


def _central_box(width: int, height: int, ratio: tuple[float, float]) -> Box:
    wide, high = width, height
    if width / height < ratio[0]:
        high = round(width / ratio[0])
    elif width / height > ratio[1]:
        wide = round(height * ratio[1])
    return Box((width - wide) // 2, (height - high) // 2, wide, high)
