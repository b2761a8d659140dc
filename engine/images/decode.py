"""Encoded bytes to uint8 pixels of one square size, or the reason why not.

JPEGs go through torchvision's decoder, straight from the caller's buffer: 1.8x Pillow at equal pixels. Everything else,
PNG too, goes through Pillow: torchvision 0.29's PNG decoder ends the *process* with a segmentation fault on a damaged
file, and is no faster to speak of.

Conventions are those of `Image.convert("RGB")` after EXIF orientation, as in torchvision's ImageFolder and timm: alpha
is dropped, not blended; an animation is its first frame; CMYK is converted without colour profile. 16-bit grey keeps
its high byte, as 16-bit colour does (Pillow would clip it to white). 32-bit integer and float pixels have no agreed
range and are refused.
"""

import hashlib
import io
import math
import warnings
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg

from engine.images import jpeg
from engine.images.bad import BadImage

Encoded: TypeAlias = bytes | memoryview | pa.Buffer | None

MAX_PIXELS = 64_000_000
MAX_ASPECT = 50
MIN_SIDE = 2

# What is photographed, drawn or exported; without formats that start other programs (EPS) or accept any bytes (TGA).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "ICO", "JPEG2000")

KNOWN = (jpeg.MAGIC, b"\x89PNG", b"GIF8")
"""Beginnings of files that are images, though perhaps damaged ones."""

# Decoders only read from the tensor that `frombuffer` lays over the caller's bytes: torch warns of it once, here.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)


def decode(
    data: Encoded,
    size: int,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
    max_pixels: int = MAX_PIXELS,
    scaled: bool = False,
) -> torch.Tensor:
    """RGB pixels, uint8 (3, size, size) in any strides: the shorter side resized with antialiasing to size/crop_pct,
    the centre cropped.

    This is timm's transform for evaluation; with crop_pct 1 an image of that size is returned as decoded. `scaled`:
    a JPEG at least twice as large as needed is decoded at a half, a quarter or an eighth, which changes pixels by a
    level or two. Raises BadImage; for a wrong `size`, `crop_pct` or `interpolation` ValueError.
    """
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation is {interpolation!r}; use 'bilinear' or 'bicubic'")
    smaller = reduced(data, math.ceil(size / crop_pct), max_pixels) if scaled else None
    return _square(pixels(data, max_pixels) if smaller is None else smaller, size, crop_pct, interpolation)


def reduced(data: Encoded, short: int, max_pixels: int = MAX_PIXELS) -> torch.Tensor | None:
    """A JPEG decoded at 1/2, 1/4 or 1/8 with its shorter side still at least `short`: uint8 (3, h, w). None where there
    is nothing to gain and where `pixels` has to judge: other formats, small images, CMYK, damage."""
    view = _view(data)
    if view[:3] != jpeg.MAGIC:
        return None
    head = jpeg.header(view)
    _check_size(head.width, head.height, max_pixels)
    if head.components == 4 or head.bits != 8 or min(head.width, head.height) < 2 * short:
        return None
    try:
        image = Image.open(io.BytesIO(view), formats=("JPEG",))
        image.draft("RGB", (short, short))
        return torch.from_numpy(_rgb(ImageOps.exif_transpose(image))).permute(2, 0, 1)
    except Exception:  # whatever is wrong with it, the full decoder says so in its own words
        return None


def decode_mask(data: Encoded, size: int, crop_pct: float = 1.0, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """A mask, uint8 (1, size, size), with `decode`'s geometry and the nearest pixel's value: the palette index, or the
    grey level.

    Raises BadImage, `not a mask` where pixels are colours or exceed 255.
    """
    with _opened(_view(data), max_pixels) as image:
        if image.mode.startswith("I"):
            wide = np.asarray(image)
            if wide.max() > 255 or wide.min() < 0:
                raise BadImage("not a mask", f"values {wide.min()} to {wide.max()}, not 0 to 255")
            values = wide.astype(np.uint8)
        elif image.mode in ("1", "L", "P"):
            values = np.array(image).astype(np.uint8)
        else:
            raise BadImage("not a mask", f"pixels are {image.mode}, not palette indices or grey levels")
    return _square(torch.from_numpy(values)[None], size, crop_pct, "nearest-exact")


def content_hash(data: bytes | memoryview | pa.Buffer) -> bytes:
    """16 bytes that name the encoded bytes: SHA-256, which CPUs have in hardware, cut to half."""
    return hashlib.sha256(data).digest()[:16]


def pixels(data: Encoded, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """RGB pixels in the image's own size, uint8 (3, height, width) in any strides. Raises BadImage."""
    view = _view(data)
    if view[:3] == jpeg.MAGIC:
        head = jpeg.header(view)
        _check_size(head.width, head.height, max_pixels)
        if head.components != 4 and head.bits == 8:  # CMYK has conventions of its own, which Pillow knows
            try:
                source = torch.frombuffer(view, dtype=torch.uint8)
                return decode_jpeg(source, mode=ImageReadMode.RGB, apply_exif_orientation=True)
            except RuntimeError as error:
                if "truncated" in str(error):
                    raise BadImage("truncated", "JPEG ends inside its pixels") from None
    with _opened(view, max_pixels) as image:
        return torch.from_numpy(_rgb(image)).permute(2, 0, 1)


def _view(data: Encoded) -> memoryview:
    if data is None:
        raise BadImage("missing")
    view = memoryview(data).cast("B")
    if not len(view):
        raise BadImage("empty")
    return view


def _check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse by the header alone what would cost memory or cannot be an image of anything."""
    shown = f"{width} x {height} pixels"
    if width * height > max_pixels:
        raise BadImage("too large", f"{shown}, more than {max_pixels:,}")
    if min(width, height) < MIN_SIDE:
        raise BadImage("too small", shown)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage("extreme aspect", shown)


def _opened(view: memoryview, max_pixels: int) -> Image.Image:
    """A Pillow image, loaded and turned upright. Raises BadImage."""
    try:
        image = Image.open(io.BytesIO(view), formats=FORMATS)
        _check_size(*image.size, max_pixels)
        image.load()
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise BadImage("too large", str(error)) from None
    except UnidentifiedImageError:
        raise BadImage("corrupt" if bytes(view[:4]).startswith(KNOWN) else "not an image", "no header") from None
    except Exception as error:  # Pillow's plugins raise what their format makes them trip over
        cut = any(word in str(error).lower() for word in ("truncat", "incomplete", "unexpected end", "not enough"))
        raise BadImage("truncated" if cut or isinstance(error, EOFError) else "corrupt", str(error)) from None
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are sound; unreadable EXIF says nothing about orientation
        return image


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 (height, width, 3), a copy of its own."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadImage("unsupported pixels", f"32-bit pixels ({image.mode}) have no agreed range")
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    try:
        return np.array(image.convert("RGB"))
    except ValueError as error:
        raise BadImage("unsupported pixels", str(error)) from None


def _square(image: torch.Tensor, size: int, crop_pct: float, mode: str) -> torch.Tensor:
    """(C, h, w) -> (C, size, size) by the rule of torchvision's Resize and CenterCrop, with timm's rounding of the size
    before cropping."""
    if size < 1 or not 0 < crop_pct <= 1:
        raise ValueError(f"size {size} and crop_pct {crop_pct}: size is at least 1, crop_pct above 0 and at most 1")
    _, height, width = image.shape
    short, target = min(height, width), math.floor(size / crop_pct)
    if short != target:
        shape = [int(target * side / short) for side in (height, width)]
        smooth = {} if mode == "nearest-exact" else {"antialias": True, "align_corners": False}
        image = F.interpolate(image[None], shape, mode=mode, **smooth)[0]
        _, height, width = image.shape
    if height == width == size:
        return image
    top, left = round((height - size) / 2), round((width - size) / 2)
    return image[:, top : top + size, left : left + size].clone()  # not a view: it would keep the whole image in memory
