"""JPEGs decoded on the GPU, a batch at a time, by nvJPEG through torchvision: where a GPU outruns the CPU cores beside it.

nvJPEG rounds otherwise than libjpeg-turbo does, by a level or two, and overlooks damage. So it gets only what looks sound from outside; the
rest is the CPU's, whose decoder has the last word on everything that is refused.
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
"""A JPEG's last marker; without it the file was cut."""

# Decoders only read from the tensor that `frombuffer` lays over the caller's bytes: torch warns of it once, here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)


def decode_batch(
    images: Sequence[Encoded],
    frame: Frame,
    device: str | torch.device = "cuda",
    max_pixels: int = MAX_PIXELS,
) -> list[Tensor | None]:
    """uint8 (3, S, S) on the device for each image, with `decode`'s geometry; None for what has to go to `decode`: other formats, JPEGs that
    are not upright RGB of 8 bits, too large or cut, and the whole batch where nvJPEG trips over one of it.
    """
    taken = [place for place, data in enumerate(images) if _suits(data, max_pixels)]
    made: list[Tensor | None] = [None] * len(images)
    if not taken:
        return made
    encoded = [torch.frombuffer(memoryview(images[place] or b""), dtype=torch.uint8) for place in taken]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torchvision would rather see torchcodec used, which does not decode single images on GPUs
            found = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    except RuntimeError:
        return made
    for place, image in zip(taken, found, strict=True):
        # torch resizes bytes on CPUs only
        smooth = square(image.float()[None], frame)
        made[place] = smooth[0].round_().clamp_(0, 255).byte()
    return made


def _suits(data: Encoded, max_pixels: int) -> bool:
    """Whether it is nvJPEG's, from its header and its end."""
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
