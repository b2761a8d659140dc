"""RandAugment (Cubuk et al. 2019) of a batch of uint8 images, on the device that holds it.

Every image draws its own operations, uniformly and with replacement, from those of a scale (engine.images.augment_levels). The first operations of
all images are applied together, then the second: eight operations are lookup tables per channel, hence one gather; five are affine maps, hence one
grid_sample; Color and Sharpness blend the images that drew them. Results equal PIL's bit for bit, except AutoContrast, which differs by 1 where PIL's
floating point falls just below an integer.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.images.augment_levels import (
    AUTOCONTRAST,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    CUTOUT,
    EQUALIZE,
    IDENTITY,
    INVERT,
    POSTERIZE,
    PROBABILITY,
    ROTATE,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    SOLARIZE,
    SOLARIZE_ADD,
    TORCHVISION,
    TRANSLATE_X,
    TRANSLATE_Y,
    Scale,
)
from engine.tables.schema import IGNORE

FILL = 128
"""Grey value of pixels from outside the image."""
LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601 weights of red, green and blue in luminance."""
DRAWS = 2
"""Uniform numbers per operation: its index, and its sign."""
MORE_DRAWS = 3
"""Further ones of scales that need them: whether it is applied, and the centre of a cutout."""


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` random operations at one magnitude for every image of a batch, or each at a strength drawn from 0 to it (`uniform`)."""

    num_ops: int
    magnitude: float
    uniform: bool = False
    scale: Scale = TORCHVISION
    probability: float | None = None
    """That a drawn operation is applied; None: the scale's own."""

    @property
    def applied(self) -> float:
        return PROBABILITY[self.scale.name] if self.probability is None else self.probability

    @property
    def draws(self) -> int:
        """Uniform numbers per image."""
        more = self.applied < 1 or CUTOUT in self.scale.operations
        return self.num_ops * (DRAWS + (MORE_DRAWS if more else 0))

    def __call__(
        self, images: Tensor, draws: npt.NDArray[np.float64], mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Augmented copies of `images` uint8 (B, 3, H, H) and of `mask` uint8 (B, 1, H, H), to which only geometric operations apply.

        `draws`: uniform numbers in [0, 1), float64 (B, self.draws), per image.
        """
        images = images.clone()
        mask = None if mask is None else mask.clone()
        operations = np.array(self.scale.operations)
        always, more = np.split(draws, [DRAWS * self.num_ops], axis=1)
        for number, drawn in enumerate(np.split(always, self.num_ops, axis=1)):
            ops = operations[(drawn[:, 0] * len(operations)).astype(np.int64)]
            signed = 2 * drawn[:, 1] - 1  # sign and absolute value (uniform in 0..1) are independent
            magnitudes = self.magnitude * (np.abs(signed) if self.uniform else np.ones_like(signed))
            centres = None
            if more.shape[1]:
                own = more[:, MORE_DRAWS * number : MORE_DRAWS * (number + 1)]
                ops, centres = np.where(own[:, 0] < self.applied, ops, IDENTITY), own[:, 1:]
            signs = np.where(signed < 0, -1.0, 1.0)
            apply_ops(images, ops, self.scale.arguments(ops, magnitudes, signs, images.shape[-1]), mask, centres)
        return images, mask


def apply_ops(
    images: Tensor,
    ops: npt.NDArray[np.int64],
    arguments: npt.NDArray[np.float64],
    mask: Tensor | None = None,
    centres: npt.NDArray[np.float64] | None = None,
) -> None:
    """Apply one operation per image in place: OPS[ops[i]] with its argument (`Scale.arguments`); `centres` (B, 2), shares of the side, of cutouts."""

    def chosen(first: int, last: int) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Indices of the images that drew an operation in first..last: on the host, and on the device."""
        which = np.flatnonzero((ops >= first) & (ops <= last))
        return which, torch.from_numpy(which).to(images.device, non_blocking=True)

    which, index = chosen(AUTOCONTRAST, SOLARIZE_ADD)
    if which.size:
        picked = images[index]
        images[index] = look_up(picked, _tables(picked, ops[which], arguments[which]))
    which, index = chosen(ROTATE, TRANSLATE_Y)
    if which.size:
        matrices = _matrices(ops[which], arguments[which], images.shape[-1])
        images[index] = warp(images[index], matrices, FILL, "bilinear")
        if mask is not None:
            mask[index] = warp(mask[index], matrices, IGNORE, "nearest")
    for op, degenerate in ((COLOR, _luma), (SHARPNESS, _smooth)):
        which, index = chosen(op, op)
        if which.size:
            picked = images[index]
            images[index] = _blend(degenerate(picked), picked, _per_image(arguments[which], images.device))
    which, index = chosen(CUTOUT, CUTOUT)
    if which.size:
        assert centres is not None, "a scale with Cutout draws its centres"
        images[index] = cut_out(images[index], centres[which], 2 * arguments[which].astype(np.int64))


def cut_out(images: Tensor, centres: npt.NDArray[np.float64], sides: int | npt.NDArray[np.int64]) -> Tensor:
    """Grey over a square of `sides` pixels, one for all or (B,), around `centres` (B, 2), shares of the image's side; it may reach outside."""
    size, sides = images.shape[-1], np.broadcast_to(np.asarray(sides), len(images))[:, None, None]
    starts = (centres * size).astype(np.int64)[:, :, None] - sides // 2
    covered = (np.arange(size) >= starts) & (np.arange(size) < starts + sides)
    across, down = torch.from_numpy(covered).to(images.device, non_blocking=True).unbind(1)
    return images.masked_fill(across[:, None, None, :] & down[:, None, :, None], FILL)


def _per_image(values: npt.NDArray[np.float64], device: torch.device) -> Tensor:
    """float32 (n, 1, 1, 1) on `device`."""
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True).view(-1, 1, 1, 1)


def _blend(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """degenerate + factor (image - degenerate), clipped to 0..255 and truncated, uint8, as PIL.Image.blend."""
    # Not addcmul or lerp: fused multiply-adds round differently from PIL, and possibly at the end of a tensor.
    start = degenerate.float()
    return (images.float() - start).mul(factors).add_(start).clamp_(0, 255).to(torch.uint8)


def _luma(images: Tensor) -> Tensor:
    """Luminance int32 (n, 1, H, W) in 0..255 of uint8 (n, 3, H, W): ITU-R 601 in PIL's 16-bit fixed point."""
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).unsqueeze(1)


def _smooth(images: Tensor) -> Tensor:
    """PIL's SMOOTH filter, int16 (n, 3, H, W): weights 1 around 5, over 13, rounded; pixels at the border are unchanged."""
    smooth = images.short()
    if min(images.shape[-2:]) < 3:
        return smooth
    rows = smooth[..., :-2, :] + smooth[..., 1:-1, :] + smooth[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * smooth[..., 1:-1, 1:-1]
    smooth[..., 1:-1, 1:-1] = (2 * total + 13) // 26
    return smooth


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace every value v of `images` uint8 (n, C, H, W) by tables[n, C, v]; tables uint8 (n, C, 256)."""
    return tables.gather(2, images.flatten(2).long()).view_as(images)


def _tables(images: Tensor, ops: npt.NDArray[np.int64], arguments: npt.NDArray[np.float64]) -> Tensor:
    """Lookup tables uint8 (n, 3, 256) of the operations AutoContrast to SolarizeAdd of the images."""
    device = images.device
    values = torch.arange(256, device=device, dtype=torch.int32)
    tables = values.to(torch.uint8).repeat(len(ops), 3, 1)
    for op in np.unique(ops):
        which = np.flatnonzero(ops == op)
        index = torch.from_numpy(which).to(device, non_blocking=True)
        argument = _per_image(arguments[which], device).squeeze(3)
        if op == AUTOCONTRAST:
            table = _autocontrast(images[index], values)
        elif op == EQUALIZE:
            table = _equalize(images[index], values)
        elif op == SOLARIZE:
            table = torch.where(values < argument, values, 255 - values)
        elif op == POSTERIZE:
            dropped = 8 - argument.int()
            table = (values >> dropped) << dropped
        elif op == INVERT:
            table = 255 - values
        elif op == SOLARIZE_ADD:
            table = torch.where(values < 128, (values + argument.int()).clamp(max=255), values)
        elif op == CONTRAST:
            # Sums of integers are exact in any order, so the mean is the same in any batch.
            luma = _luma(images[index]).flatten(1)
            mean = (2 * luma.sum(1) + luma.shape[1]) // (2 * luma.shape[1])
            table = _blend(mean.view(-1, 1, 1), values, argument)
        else:
            assert op == BRIGHTNESS, "the last of the tables"
            table = _blend(torch.zeros_like(values), values, argument)
        tables[index] = table.to(torch.uint8).expand(len(which), 3, 256)
    return tables


def _autocontrast(images: Tensor, values: Tensor) -> Tensor:
    """Tables int32 (n, 3, 256) that stretch each channel to 0..255; a constant channel is unchanged."""
    low, high = (bound.int().unsqueeze(2) for bound in images.flatten(2).aminmax(dim=2))
    stretched = ((values - low) * 255 // (high - low).clamp(min=1)).clamp(0, 255)
    return torch.where(high > low, stretched, values)


def _equalize(images: Tensor, values: Tensor) -> Tensor:
    """Tables int64 (n, 3, 256) that equalise the histogram of each channel, in PIL's integer arithmetic."""
    pixels = images.flatten(2).long()
    histogram = torch.zeros(*pixels.shape[:2], 256, dtype=torch.int64, device=images.device).scatter_add_(
        2, pixels, torch.ones_like(pixels)
    )
    last = histogram.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - last) // 255
    below = histogram.cumsum(2) - histogram
    spread = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, spread, values)


def _matrices(ops: npt.NDArray[np.int64], arguments: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Affine maps float64 (n, 2, 3) from coordinates of the output to coordinates of the input, both in -1..1."""
    angle = np.deg2rad(arguments) * (ops == ROTATE)
    # Half an image is 1; shifts are integers of pixels, which need no interpolation.
    shift = arguments * 2 / side
    matrices = np.empty((len(ops), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = np.cos(angle)
    matrices[:, 0, 1] = np.where(ops == SHEAR_X, arguments, -np.sin(angle))
    matrices[:, 1, 0] = np.where(ops == SHEAR_Y, arguments, np.sin(angle))
    matrices[:, 0, 2] = np.where(ops == TRANSLATE_X, shift, 0)
    matrices[:, 1, 2] = np.where(ops == TRANSLATE_Y, shift, 0)
    return matrices


def warp(images: Tensor, matrices: npt.NDArray[np.float64], fill: int, mode: str, size: int | None = None) -> Tensor:
    """uint8 (n, C, S, S): `images` uint8 (n, C, H, H) sampled at the coordinates given by `matrices` (n, 2, 3); `fill` outside."""
    theta = torch.from_numpy(matrices.astype(np.float32)).to(images.device, non_blocking=True)
    side = size or images.shape[-1]
    grid = _grid(theta, side)
    sampled = F.grid_sample(images.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    outside = grid.abs().amax(3).unsqueeze(1) > 1
    return sampled.round_().masked_fill_(outside, fill).to(torch.uint8)


def _grid(theta: Tensor, side: int) -> Tensor:
    """Coordinates of the input, float32 (n, S, S, 2). F.affine_grid multiplies matrices, whose rounding may depend on the batch size."""
    centres = (torch.arange(side, device=theta.device, dtype=torch.float32) * 2 + 1) / side - 1
    theta = theta.view(-1, 2, 3, 1, 1)
    coordinates = theta[:, :, 0] * centres + theta[:, :, 1] * centres.view(-1, 1) + theta[:, :, 2]
    return coordinates.permute(0, 2, 3, 1)
