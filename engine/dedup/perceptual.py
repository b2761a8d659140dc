"""A 64-bit perceptual hash: images that a person would call the same differ in few bits, others in about half.

The image in grey, 32 x 32; its discrete cosine transform; of each of the 64 lowest frequencies but the mean, whether it lies above
their median (pHash, Zauner 2010). Re-encoding, resizing and brightness leave low frequencies nearly as they were.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from engine.images.decode import MAX_PIXELS, Encoded, decode_full_size, decode_reduced

SIDE = 32
LOW = 8
BITS = 64

Hashes = npt.NDArray[np.uint64]


def _cosines() -> torch.Tensor:
    """The first LOW + 1 rows of the DCT-II of SIDE samples, orthonormal, float32."""
    frequency, place = torch.arange(LOW + 1)[:, None], torch.arange(SIDE)[None]
    rows = torch.cos(torch.pi * (place + 0.5) * frequency / SIDE) * (2 / SIDE) ** 0.5
    return torch.cat([rows[:1] / 2**0.5, rows[1:]])


COSINES = _cosines()
GREY = torch.tensor([0.299, 0.587, 0.114])
WEIGHTS = torch.arange(BITS)


def thumbnail(data: Encoded) -> torch.Tensor:
    """Grey float32 (SIDE, SIDE) of an encoded image, whatever its aspect. Raises RejectedImageError."""
    image = decode_reduced(data, SIDE, MAX_PIXELS)
    image = decode_full_size(data) if image is None else image
    grey = torch.from_numpy(image).float() @ GREY
    return F.interpolate(grey[None, None], (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0, 0]


def hashes(thumbnails: torch.Tensor) -> Hashes:
    """Hashes (N,) of grey images (N, SIDE, SIDE)."""
    low = (COSINES @ thumbnails @ COSINES.T)[:, :LOW, :LOW].reshape(-1, BITS)[:, 1:]
    bits = low > low.median(dim=1, keepdim=True).values
    packed = np.packbits(F.pad(bits, (1, 0)).numpy(), axis=1)
    return packed.view(">u8").astype(np.uint64)[:, 0]


def distance(first: Hashes, second: Hashes) -> npt.NDArray[np.uint8]:
    """In how many bits hashes differ."""
    return np.bitwise_count(first ^ second)
