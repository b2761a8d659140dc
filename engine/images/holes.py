"""Rectangles cut out of images, each image's from its own seed alone (engine.images.counter_rng)."""

import numpy as np
import numpy.typing as npt

from engine.images.counter_rng import uniforms


def holes(
    seeds: npt.NDArray[np.uint64], size: int, number: tuple[int, int], side: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """True inside the holes, bool (B, size, size).

    `number` of rectangles an image and `side` of each in pixels are drawn uniformly from low..high - 1, height and
    width apart; centres are uniform, and what reaches outside the image is cut off.
    """
    draws = uniforms(seeds, 1 + 4 * (number[1] - 1))
    count = number[0] + (draws[:, 0] * (number[1] - number[0])).astype(np.int64)
    boxes = draws[:, 1:].reshape(len(seeds), -1, 4)
    sides = side[0] + (boxes[:, :, :2] * (side[1] - side[0])).astype(np.int64)
    starts = (boxes[:, :, 2:] * size).astype(np.int64) - sides // 2
    places = np.arange(size)
    inside = (places >= starts[..., None]) & (places < (starts + sides)[..., None])  # (B, n, 2, size)
    inside &= (np.arange(boxes.shape[1]) < count[:, None])[..., None, None]
    return np.any(inside[:, :, 0, :, None] & inside[:, :, 1, None, :], axis=1)
