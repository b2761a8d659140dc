"""What a model is shown: image and mask go through one random geometry, the image then through colour and scaling.

A view works on whole batches of decoded uint8 images on the device that holds them. What an image goes through follows
from its own seed alone (engine.images.chance), so a batch can be cut, resumed or moved to other workers without
changing a pixel. In order: resize, mirror, translation, RandAugment, cutout, normalisation. Only resize, rotation and
shear interpolate; the rest copies pixels exactly. Random resized crops need the whole picture, so they are taken before,
when images are decoded (engine.images.crops).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.images import crops
from engine.images.augment_levels import Scale
from engine.images.counter_rng import uniforms
from engine.images.randaugment import FILL, RandAugment, cut_out
from engine.settings.fit import NoiseSettings
from engine.tables.schema import IGNORE

CPU_PIECE = 2**21
"""Bytes of images that a CPU works on at once: RandAugment of 224 pixels is 1.4 times as fast, and memory stays flat."""

# Every use has numbers of its own, so that switching one kind of noise on leaves the draws of the others as they were.
FLIP, PAD, CUTOUT = 0, slice(1, 3), slice(3, crops.FIRST)
AUGMENT = crops.LAST


class View:
    """Random (or, without noise, plain) views of images, normalised for a model.

    noise: what the images go through; None for a view to evaluate with. img_size: side S of what comes out, pixels.
    mean, std: of the three channels, for pixels in 0..1.
    """

    def __init__(self, noise: NoiseSettings | None, img_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        self.noise = noise
        self.img_size = img_size
        self.mean = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1) * 255
        self.augment = randaugment(noise) if noise and noise.aa_num_ops else None
        if noise and noise.scale is not None:
            raise ValueError(
                "noise.scale: a view sees squares, and random resized crops are taken from whole pictures by the stream: "
                "name them in Objective.crops, and give the view the noise without scale"
            )
        if noise and noise.pad >= img_size:
            raise ValueError(
                f"noise.pad={noise.pad} reflects more than an image has: at most {img_size - 1} at img_size={img_size}"
            )

    def __call__(
        self, images: Tensor, seeds: npt.NDArray[np.uint64] | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Normalised float32 (B, 3, S, S) of `images` uint8 (B, 3, H, H), and the mask uint8 (B, 1, S, S) beside it.

        seeds: uint64 (B,), one an image; needed where there is noise. Mask pixels from outside the image are IGNORE.
        """
        pixels, mask = self.pixels(images, seeds, mask)
        return self.normalise(pixels), mask

    def pixels(
        self, images: Tensor, seeds: npt.NDArray[np.uint64] | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The view before normalisation: uint8 (B, 3, S, S) and the mask."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[2] != images.shape[3]:
            raise ValueError(f"a view takes square uint8 images (B, 3, H, H), not {images.dtype} {tuple(images.shape)}")
        if self.noise is None:
            return resize(images, mask, self.img_size)
        if seeds is None or len(seeds) != len(images):
            given = 0 if seeds is None else len(seeds)
            raise ValueError(f"a view with noise takes one seed an image: {len(images)} images, {given} seeds")
        if images.is_cuda or images.numel() <= CPU_PIECE:
            return self._noisy(self.noise, images, seeds, mask)
        step = max(1, CPU_PIECE // images[0].numel())
        parts = [slice(start, start + step) for start in range(0, len(images), step)]
        pieces = [self._noisy(self.noise, images[p], seeds[p], None if mask is None else mask[p]) for p in parts]
        masks = [piece[1] for piece in pieces if piece[1] is not None]
        return torch.cat([piece[0] for piece in pieces]), torch.cat(masks) if masks else None

    def _noisy(
        self, noise: NoiseSettings, images: Tensor, seeds: npt.NDArray[np.uint64], mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        draws = uniforms(seeds, AUGMENT + (self.augment.draws if self.augment is not None else 0))
        images, mask = resize(images, mask, self.img_size)
        if noise.hflip > 0 or noise.pad > 0:
            shifts = (draws[:, PAD] * (2 * noise.pad + 1)).astype(np.int64) - noise.pad
            grey = noise.pad_mode == "grey"
            images, mask = mirror_and_shift(images, mask, draws[:, FLIP] < noise.hflip, shifts, grey)
        if self.augment is not None:
            images, mask = self.augment(images, draws[:, AUGMENT:], mask)
        if noise.cutout > 0:
            images = cut_out(images, draws[:, CUTOUT], noise.cutout)
        return images, mask

    def normalise(self, pixels: Tensor) -> Tensor:
        """float32 (B, 3, S, S) of uint8 pixels."""
        if self.mean.device != pixels.device:
            self.mean, self.std = self.mean.to(pixels.device), self.std.to(pixels.device)
        return pixels.float().sub_(self.mean).div_(self.std)


def randaugment(noise: NoiseSettings) -> RandAugment:
    """RandAugment as the settings ask for it."""
    scale = Scale(noise.aa_scale, noise.aa_translate, noise.aa_cutout)
    return RandAugment(noise.aa_num_ops, noise.aa_magnitude, noise.aa_uniform, scale, noise.aa_prob)


def resize(images: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """Images bilinear with antialiasing, masks nearest, to `size` pixels a side; untouched when they have it."""
    if images.shape[-1] != size:
        resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
        images = resized.round_().clamp_(0, 255).to(torch.uint8)
    if mask is not None and mask.shape[-1] != size:
        mask = F.interpolate(mask, (size, size), mode="nearest-exact")
    return images, mask


def mirror_and_shift(
    images: Tensor,
    mask: Tensor | None,
    mirrored: npt.NDArray[np.bool_],
    shifts: npt.NDArray[np.int64],
    grey: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Mirror left-right where `mirrored` (B,), then show the window `shifts` pixels (B, 2) to the right and down.

    Beyond its border the image reflects, or is `grey`, and the mask is IGNORE. Pixels are copied, not interpolated.
    """
    side = images.shape[-1]
    places = shifts[:, :, None] + np.arange(side)
    inside = (places >= 0) & (places < side)
    places = np.abs(places)
    places = np.minimum(places, 2 * (side - 1) - places)
    places[mirrored, 0] = side - 1 - places[mirrored, 0]
    columns, rows = torch.from_numpy(places).to(images.device, non_blocking=True).unbind(1)

    def moved(batch: Tensor) -> Tensor:
        whole_rows = batch.gather(2, rows[:, None, :, None].expand(batch.shape))
        return whole_rows.gather(3, columns[:, None, None, :].expand(batch.shape))

    across, down = torch.from_numpy(inside).to(images.device, non_blocking=True).unbind(1)
    outside = ~(across[:, None, None, :] & down[:, None, :, None])
    if mask is not None:
        mask = moved(mask).masked_fill_(outside, IGNORE)
    images = moved(images)
    return images.masked_fill_(outside, FILL) if grey else images, mask
