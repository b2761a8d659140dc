"""Decode batches of JPEGs on the GPU with nvJPEG through torchvision, where a GPU is faster than the CPU cores of its node.

nvJPEG rounds differently from libjpeg-turbo, by a level or two, and ignores damage. So it decodes only files with a sound header and end; all others
are decoded on the CPU, whose decoder alone decides on rejection.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from engine.images import jpeg
from engine.images.decode import MAX_PIXELS, Encoded, Frame, check_size, square
from engine.images.errors import RejectedImageError

END = b"\xff\xd9"
"""The last marker of a JPEG; a file without it is truncated."""

# Decoders only read from the tensor that `frombuffer` creates over the bytes of the caller: torch warns once, here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)


def decode_batch(
    images: Sequence[Encoded],
    frame: Frame,
    device: str | torch.device = "cuda",
    max_pixels: int = MAX_PIXELS,
) -> list[Tensor | None]:
    """uint8 (3, S, S) on the device for each image, with the geometry of `decode`; None for images that need `decode`: other formats, JPEGs
    that are not upright 8-bit RGB, too large or truncated, and all of them if nvJPEG fails on one.
    """
    suitable = [index for index, data in enumerate(images) if _is_suitable(data, max_pixels)]
    decoded: list[Tensor | None] = [None] * len(images)
    if not suitable:
        return decoded
    encoded = [torch.frombuffer(memoryview(images[index] or b""), dtype=torch.uint8) for index in suitable]
    try:
        with warnings.catch_warnings():
            # torchvision recommends torchcodec, which does not decode single images on GPUs
            warnings.simplefilter("ignore")
            found = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    except RuntimeError:
        return decoded
    for index, image in zip(suitable, found, strict=True):
        # torch resizes uint8 only on CPUs
        smooth = square(image.float()[None], frame)
        decoded[index] = smooth[0].round_().clamp_(0, 255).byte()
    return decoded


def _is_suitable(data: Encoded, max_pixels: int) -> bool:
    """Whether nvJPEG can decode the image, from its header and its end."""
    if data is None:
        return False
    view = memoryview(data).cast("B")
    if view[:3] != jpeg.MAGIC or view[-2:] != END:
        return False
    try:
        head = jpeg.header(view)
        check_size(head.width, head.height, max_pixels)
    except RejectedImageError:
        return False
    return (head.components, head.bits, head.orientation) == (3, 8, 1)
