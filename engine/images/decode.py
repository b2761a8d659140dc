"""Encoded bytes to uint8 pixels of one square size, or the reason why not.

Sound JPEGs go through libjpeg-turbo (simplejpeg), straight from the caller's buffer: the same pixels as Pillow's in half
of the time, in an eighth where they are small. Everything else goes through Pillow: other formats, CMYK, and damaged
JPEGs, which it judges.

Conventions are those of `Image.convert("RGB")` after EXIF orientation, as in torchvision's ImageFolder and timm: alpha
is dropped, not blended; an animation is its first frame; CMYK is converted without colour profile. 16-bit grey keeps
its high byte, as 16-bit colour does (Pillow would clip it to white). 32-bit integer and float pixels have no agreed
range and are refused.
"""

import hashlib
import io
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from simplejpeg import decode_jpeg

from engine.images import jpeg
from engine.images.errors import RejectedImageError
from engine.images.formats import FORMATS

Encoded: TypeAlias = bytes | memoryview | pa.Buffer | None
Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_PIXELS = 64_000_000
MAX_ASPECT = 50
MIN_SIDE = 2

KNOWN = (jpeg.MAGIC, b"\x89PNG", b"GIF8")
"""Beginnings of files that are images, though perhaps damaged ones."""


@dataclass(frozen=True)
class Frame:
    """The pixels that a network sees of a picture: the shorter side is resized with antialiasing to `img_size / crop_pct`, and the centre of
    `img_size` pixels a side is cropped (timm's transform for evaluation). Raises ValueError for values without a meaning."""

    img_size: int
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.img_size < 1 or not 0 < self.crop_pct <= 1:
            raise ValueError(
                f"img_size={self.img_size}, crop_pct={self.crop_pct}: img_size is at least 1, crop_pct above 0 and at most 1"
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation={self.interpolation!r}: use 'bilinear' or 'bicubic'")


def decode(data: Encoded, frame: Frame, scaled: bool = False, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """RGB pixels, uint8 (3, S, S) in any strides: `decode_array` as a tensor, channels first."""
    return torch.from_numpy(decode_array(data, frame, scaled, max_pixels)).permute(2, 0, 1)


def decode_array(data: Encoded, frame: Frame, scaled: bool = False, max_pixels: int = MAX_PIXELS) -> Pixels:
    """RGB pixels in the frame, uint8 (S, S, 3); with crop_pct 1 a picture of that size is returned as decoded.

    `scaled`: a JPEG at least twice as large as needed is decoded at a fraction of its size, which changes pixels by a level or two. Raises
    RejectedImageError.
    """
    size, crop_pct = frame.img_size, frame.crop_pct
    smaller = decode_reduced(data, math.ceil(size / crop_pct), max_pixels) if scaled else None
    found = decode_full_size(data, max_pixels) if smaller is None else smaller
    if crop_pct == 1 and found.shape[:2] == (size, size):
        return found
    # the batch's dimension before the permutation: so torch sees that channels lie last, and resizes without a copy
    image = torch.from_numpy(found)[None].permute(0, 3, 1, 2)
    return square(image, frame)[0].permute(1, 2, 0).numpy()


def decode_full_size(data: Encoded, max_pixels: int = MAX_PIXELS) -> Pixels:
    """RGB pixels in the image's own size, uint8 (height, width, 3). Raises RejectedImageError."""
    view = _view(data)
    if view[:3] == jpeg.MAGIC:
        head = jpeg.header(view)
        check_size(head.width, head.height, max_pixels)
        if (found := _turbo(view, head)) is not None:
            return found
    with _opened(view, max_pixels) as image:
        return _rgb(image)


def decode_reduced(data: Encoded, short: int, max_pixels: int = MAX_PIXELS) -> Pixels | None:
    """A JPEG decoded at the fewest eighths of its size, four at most, that leave its shorter side at least `short`: uint8
    (h, w, 3). None where there is nothing to gain and where `decode_full_size` has to judge: other formats, small images, CMYK,
    damage."""
    view = _view(data)
    if view[:3] != jpeg.MAGIC:
        return None
    head = jpeg.header(view)
    check_size(head.width, head.height, max_pixels)
    return None if min(head.width, head.height) < 2 * short else _turbo(view, head, short)


def _turbo(view: memoryview, head: jpeg.Header, short: int = 0) -> Pixels | None:
    """RGB pixels, upright, by libjpeg-turbo; scaled down by at least two with both sides at least `short`, if given.
    None for what Pillow has to see: CMYK, whose conventions it knows, and whatever is wrong with an image."""
    if head.components == 4 or head.bits != 8:
        return None
    try:
        found: Pixels = decode_jpeg(view, "RGB", min_height=short, min_width=short, min_factor=2 if short else 1)
    except ValueError:
        return None
    return found if head.orientation == 1 else _upright(found, head.orientation)


def _upright(image: Pixels, orientation: int) -> Pixels:
    """(h, w, 3) as stored, turned and mirrored as EXIF's orientation 2 to 8 says."""
    flips = {2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (1,), 7: (0, 1), 8: (0,)}[orientation]
    turned = image.swapaxes(0, 1) if orientation >= 5 else image
    return np.ascontiguousarray(np.flip(turned, flips))


def decode_mask(data: Encoded, frame: Frame, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """A mask, uint8 (1, S, S), with `decode`'s geometry and the nearest pixel's value. Raises as `decode_mask_full_size`."""
    values = decode_mask_full_size(data, max_pixels)
    return square(torch.from_numpy(values)[None, None], frame, "nearest-exact")[0]


def decode_mask_full_size(data: Encoded, max_pixels: int = MAX_PIXELS) -> Pixels:
    """A mask in its own size, uint8 (height, width): the palette index, or the grey level.

    Raises RejectedImageError, `not a mask` where pixels are colours or exceed 255.
    """
    with _opened(_view(data), max_pixels) as image:
        if image.mode.startswith("I"):
            wide = np.asarray(image)
            if wide.max() > 255 or wide.min() < 0:
                raise RejectedImageError("not a mask", f"values {wide.min()} to {wide.max()}, not 0 to 255")
            return wide.astype(np.uint8)
        if image.mode in ("1", "L", "P"):
            return np.array(image).astype(np.uint8)
        raise RejectedImageError("not a mask", f"pixels are {image.mode}, not palette indices or grey levels")


def content_hash(data: bytes | memoryview | pa.Buffer) -> bytes:
    """16 bytes that name the encoded bytes: SHA-256, which CPUs have in hardware, cut to half."""
    return hashlib.sha256(data).digest()[:16]


def _view(data: Encoded) -> memoryview:
    if data is None:
        raise RejectedImageError("missing")
    view = memoryview(data).cast("B")
    if not len(view):
        raise RejectedImageError("empty")
    return view


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse by the header alone what would cost memory or cannot be an image of anything."""
    shown = f"{width} x {height} pixels"
    if width * height > max_pixels:
        raise RejectedImageError("too large", f"{shown}, more than {max_pixels:,}")
    if min(width, height) < MIN_SIDE:
        raise RejectedImageError("too small", shown)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise RejectedImageError("extreme aspect", shown)


def _opened(view: memoryview, max_pixels: int) -> Image.Image:
    """A Pillow image, loaded and turned upright. Raises RejectedImageError."""
    try:
        image = Image.open(io.BytesIO(view), formats=FORMATS)
        check_size(*image.size, max_pixels)
        image.load()
    except RejectedImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise RejectedImageError("too large", str(error)) from None
    except UnidentifiedImageError:
        raise RejectedImageError(
            "corrupt" if bytes(view[:4]).startswith(KNOWN) else "not an image", "no header"
        ) from None
    except Exception as error:  # Pillow's plugins raise what their format makes them trip over
        cut = any(word in str(error).lower() for word in ("truncat", "incomplete", "unexpected end", "not enough"))
        raise RejectedImageError("truncated" if cut or isinstance(error, EOFError) else "corrupt", str(error)) from None
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are sound; unreadable EXIF says nothing about orientation
        return image


def _rgb(image: Image.Image) -> Pixels:
    """uint8 (height, width, 3), a copy of its own."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise RejectedImageError("unsupported pixels", f"32-bit pixels ({image.mode}) have no agreed range")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    try:
        return np.array(image.convert("RGB"))
    except ValueError as error:
        raise RejectedImageError("unsupported pixels", str(error)) from None


def square(image: torch.Tensor, frame: Frame, mode: str | None = None) -> torch.Tensor:
    """(1, C, h, w) -> (1, C, S, S) by the rule of torchvision's Resize and CenterCrop, with timm's rounding of the size before cropping.
    `mode`: interpolation of `F.interpolate` (default: the frame's)."""
    size, mode = frame.img_size, mode or frame.interpolation
    height, width = image.shape[2:]
    short, target = min(height, width), math.floor(size / frame.crop_pct)
    if short != target:
        shape = [int(target * side / short) for side in (height, width)]
        smooth = {} if mode == "nearest-exact" else {"antialias": True, "align_corners": False}
        image = F.interpolate(image, shape, mode=mode, **smooth)
        height, width = shape
    if height == width == size:
        return image
    top, left = round((height - size) / 2), round((width - size) / 2)
    crop = image[:, :, top : top + size, left : left + size]
    return crop.clone()  # not a view: it would keep the whole image in memory
