"""Random rectangles cut out of images, a function of the seed of each image (engine.images.counter_rng)."""

import numpy as np
import numpy.typing as npt

from engine.images.counter_rng import uniforms


def holes(
    seeds: npt.NDArray[np.uint64], size: int, number: tuple[int, int], side: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """The mask of the holes, bool (B, size, size).

    The `number` of rectangles per image and the `side` of each in pixels are drawn uniformly from low..high - 1, height
    and width independently; centres are uniform, and rectangles are clipped to the image.
    """
    draws = uniforms(seeds, 1 + 4 * (number[1] - 1))
    count = number[0] + (draws[:, 0] * (number[1] - number[0])).astype(np.int64)
    boxes = draws[:, 1:].reshape(len(seeds), -1, 4)
    sides = side[0] + (boxes[:, :, :2] * (side[1] - side[0])).astype(np.int64)
    starts = (boxes[:, :, 2:] * size).astype(np.int64) - sides // 2
    pixels = np.arange(size)
    inside = (pixels >= starts[..., None]) & (pixels < (starts + sides)[..., None])  # (B, n, 2, size)
    inside &= (np.arange(boxes.shape[1]) < count[:, None])[..., None, None]
    return np.any(inside[:, :, 0, :, None] & inside[:, :, 1, None, :], axis=1)
