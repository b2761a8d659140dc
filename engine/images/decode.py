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

Encoded: TypeAlias = bytes | memoryview | pa.Buffer | None
Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_PIXELS = 64_000_000
MAX_ASPECT = 50
MIN_SIDE = 2

# What is photographed, drawn or exported; without formats that start other programs (EPS) or accept any bytes (TGA).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "ICO", "JPEG2000")

KNOWN = (jpeg.MAGIC, b"\x89PNG", b"GIF8")
"""Beginnings of files that are images, though perhaps damaged ones."""


def decode(
    data: Encoded,
    size: int,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
    max_pixels: int = MAX_PIXELS,
    scaled: bool = False,
) -> torch.Tensor:
    """RGB pixels, uint8 (3, size, size) in any strides: `decode_array` as a tensor, channels first."""
    return torch.from_numpy(decode_array(data, size, crop_pct, interpolation, max_pixels, scaled)).permute(2, 0, 1)


def decode_array(
    data: Encoded,
    size: int,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
    max_pixels: int = MAX_PIXELS,
    scaled: bool = False,
) -> Pixels:
    """RGB pixels, uint8 (size, size, 3): the shorter side resized with antialiasing to size/crop_pct, the centre cropped.

    This is timm's transform for evaluation; with crop_pct 1 an image of that size is returned as decoded. `scaled`:
    a JPEG at least twice as large as needed is decoded at a fraction of its size, which changes pixels by a level or
    two. Raises BadImage; for a wrong `size`, `crop_pct` or `interpolation` ValueError.
    """
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation is {interpolation!r}; use 'bilinear' or 'bicubic'")
    smaller = decode_reduced(data, math.ceil(size / crop_pct), max_pixels) if scaled else None
    found = decode_full_size(data, max_pixels) if smaller is None else smaller
    if crop_pct == 1 and found.shape[:2] == (size, size):
        return found
    # the batch's dimension before the permutation: so torch sees that channels lie last, and resizes without a copy
    image = torch.from_numpy(found)[None].permute(0, 3, 1, 2)
    return square(image, size, crop_pct, interpolation)[0].permute(1, 2, 0).numpy()


def decode_full_size(data: Encoded, max_pixels: int = MAX_PIXELS) -> Pixels:
    """RGB pixels in the image's own size, uint8 (height, width, 3). Raises BadImage."""
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


def decode_mask(data: Encoded, size: int, crop_pct: float = 1.0, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """A mask, uint8 (1, size, size), with `decode`'s geometry and the nearest pixel's value. Raises as `decode_mask_full_size`."""
    values = decode_mask_full_size(data, max_pixels)
    return square(torch.from_numpy(values)[None, None], size, crop_pct, "nearest-exact")[0]


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
    """A Pillow image, loaded and turned upright. Raises BadImage."""
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


def square(image: torch.Tensor, size: int, crop_pct: float, mode: str) -> torch.Tensor:
    """(1, C, h, w) -> (1, C, size, size) by the rule of torchvision's Resize and CenterCrop, with timm's rounding of the
    size before cropping."""
    if size < 1 or not 0 < crop_pct <= 1:
        raise ValueError(f"size {size} and crop_pct {crop_pct}: size is at least 1, crop_pct above 0 and at most 1")
    height, width = image.shape[2:]
    short, target = min(height, width), math.floor(size / crop_pct)
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
