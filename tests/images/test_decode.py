"""Thirty-odd kinds of images: each as Pillow's users expect, or refused with a reason."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvf

from engine.images.decode import Frame, content_hash, decode, decode_full_size, decode_mask
from engine.images.errors import RejectedImageError

from .making import encode, jpeg, picture


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(1), kind, exif=exif)


def palette(**options: Any) -> bytes:
    return encode(picture(2).quantize(16), "PNG", **options)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG whose header declares another size than its pixels have."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def animated(kind: str) -> bytes:
    return encode(picture(3), kind, save_all=True, append_images=[picture(4), picture(5)])


def bad_exif() -> bytes:
    data = oriented("JPEG", 1)
    at = data.index(b"Exif\0\0") + 6
    return data[:at] + b"\xff" * 12 + data[at + 12 :]


def nonsense_tables() -> bytes:
    data = jpeg()
    at = data.index(b"\xff\xc4") + 5
    return data[:at] + b"\xff" * 16 + data[at + 16 :]


def damaged_png() -> bytes:
    data = encode(picture(6, 64, 48))
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


wide = np.random.default_rng(0).integers(0, 65536, (16, 24), dtype=np.uint16)

USABLE: dict[str, Callable[[], bytes]] = {
    "jpeg": jpeg,
    "jpeg progressive": lambda: encode(picture(), "JPEG", progressive=True),
    "jpeg 4:4:4": lambda: encode(picture(), "JPEG", subsampling=0),
    "jpeg grey": lambda: encode(picture(mode="L"), "JPEG"),
    "jpeg cmyk": lambda: encode(picture(mode="CMYK"), "JPEG"),
    "jpeg with rest after its end": lambda: jpeg() + b"trailing bytes",
    "jpeg of unreadable exif": bad_exif,
    "jpeg odd size": lambda: jpeg(width=17, height=31),
    "mpo": lambda: encode(picture(), "MPO", save_all=True, append_images=[picture(1)]),
    **{f"jpeg exif {turn}": partial(oriented, "JPEG", turn) for turn in range(1, 9)},
    "png": lambda: encode(picture()),
    "png exif": lambda: oriented("PNG", 6),
    "png rgba": lambda: encode(picture(mode="RGBA")),
    "png transparent": lambda: encode(Image.new("RGBA", (8, 8), (200, 100, 50, 0))),
    "png grey": lambda: encode(picture(mode="L")),
    "png grey alpha": lambda: encode(picture(mode="LA")),
    "png bilevel": lambda: encode(picture(mode="1")),
    "png palette": palette,
    "png palette transparent": lambda: palette(transparency=0),
    "png palette alpha": lambda: palette(transparency=bytes(range(0, 256, 16))),
    "apng": lambda: animated("PNG"),
    "gif": lambda: encode(picture(), "GIF"),
    "gif animated": lambda: animated("GIF"),
    "webp": lambda: encode(picture(), "WEBP", lossless=True),
    "webp lossy alpha": lambda: encode(picture(mode="RGBA"), "WEBP"),
    "webp animated": lambda: animated("WEBP"),
    "avif": lambda: encode(picture(), "AVIF"),
    "bmp": lambda: encode(picture(), "BMP"),
    "tiff": lambda: encode(picture(), "TIFF"),
    "tiff lzw cmyk": lambda: encode(picture(mode="CMYK"), "TIFF", compression="tiff_lzw"),
    "tiff exif": lambda: oriented("TIFF", 8),
    "tiff pages": lambda: animated("TIFF"),
    "tiff lab": lambda: encode(Image.new("LAB", (9, 9), (120, 150, 90)), "TIFF"),
    "ppm": lambda: encode(picture(), "PPM"),
    "ico": lambda: encode(picture(0, 32, 32), "ICO"),
    "jpeg 2000": lambda: encode(picture(), "JPEG2000"),
}

UNUSABLE: dict[str, tuple[Callable[[], bytes | None], str]] = {
    "null": (lambda: None, "missing"),
    "no bytes": (lambda: b"", "empty"),
    "text": (lambda: b"404 not found", "not an image"),
    "html": (lambda: b"<!doctype html><html></html>" * 20, "not an image"),
    "zeros": (lambda: bytes(5000), "not an image"),
    "random": (lambda: np.random.default_rng(3).bytes(5000), "not an image"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
    "pdf": (lambda: b"%PDF-1.7\n" + bytes(100), "not an image"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "jpeg magic": (lambda: b"\xff\xd8\xff", "truncated"),
    "jpeg header cut": (lambda: jpeg()[:100], "truncated"),
    "jpeg half": (lambda: jpeg(width=200, height=150)[:-800], "truncated"),
    "jpeg without end": (lambda: jpeg()[:-2], "truncated"),
    "jpeg tables of nonsense": (nonsense_tables, "corrupt"),
    "jpeg cmyk half": (lambda: encode(picture(0, 99, 99, "CMYK"), "JPEG")[:-700], "truncated"),
    "jpeg bomb": (lambda: jpeg_header(60_000, 60_000), "too large"),
    "png header cut": (lambda: encode(picture())[:30], "corrupt"),
    "png half": (lambda: encode(picture(0, 200, 150))[:-9000], "truncated"),
    "png without pixels": (lambda: png_header(20, 20), "truncated"),
    "png damaged": (damaged_png, "corrupt"),
    "png bomb": (lambda: png_header(30_000, 30_000), "too large"),
    "png small bomb": (lambda: png_header(9_000, 9_000), "too large"),
    "gif half": (lambda: encode(picture(0, 200, 150), "GIF")[:2000], "truncated"),
    "tracking pixel": (lambda: encode(Image.new("RGB", (1, 1))), "too small"),
    "a line": (lambda: encode(Image.new("RGB", (500, 1))), "too small"),
    "a ribbon": (lambda: encode(Image.new("RGB", (4000, 4)), "JPEG"), "extreme aspect"),
    "float tiff": (lambda: encode(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "unsupported pixels"),
    "int32 tiff": (lambda: encode(Image.fromarray(np.ones((9, 9), np.int32)), "TIFF"), "unsupported pixels"),
}


def by_pillow(data: bytes, upright: bool) -> np.ndarray:
    image: Any = Image.open(io.BytesIO(data))
    if upright:
        image = ImageOps.exif_transpose(image)
    if image.mode == "P":
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", USABLE)
def test_usable_images_are_what_pillow_makes_of_them(name: str) -> None:
    data = USABLE[name]()
    expected = by_pillow(data, upright=name != "jpeg of unreadable exif")  # some Pillows raise on that, some let it be
    found = decode_full_size(data)
    np.testing.assert_array_equal(found, expected)
    assert decode(data, Frame(12)).shape == (3, 12, 12)


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_images_are_refused_with_a_reason(name: str) -> None:
    make, reason = UNUSABLE[name]
    with pytest.raises(RejectedImageError) as caught:
        decode(make(), Frame(12))
    assert caught.value.reason == reason


def test_there_are_thirty_kinds_and_more() -> None:
    assert len(USABLE) + len(UNUSABLE) >= 60


def test_grey_of_16_bits_keeps_its_high_byte() -> None:
    found = decode_full_size(encode(Image.fromarray(wide)))
    np.testing.assert_array_equal(found.transpose(2, 0, 1), np.repeat((wide >> 8).astype(np.uint8)[None], 3, 0))


@pytest.mark.parametrize("wrap", [bytes, memoryview, pa.py_buffer])
def test_every_kind_of_buffer_is_read_and_left_as_it_was(wrap: Callable[[bytes], Any]) -> None:
    data = jpeg(1)
    before = content_hash(data)
    np.testing.assert_array_equal(decode(wrap(data), Frame(16)), decode(data, Frame(16)))
    assert content_hash(wrap(data)) == before
    assert len(before) == 16


@cache
def scene(width: int, height: int) -> bytes:
    return jpeg(7, width=width, height=height)


@pytest.mark.parametrize("size", [8, 16, 33])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.7])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (50, 49), (99, 20)])
def test_geometry_is_that_of_timms_evaluation(size: int, crop_pct: float, mode: str, shape: tuple[int, int]) -> None:
    whole = torch.from_numpy(decode_full_size(scene(*shape))).permute(2, 0, 1)
    resized = tvf.resize(whole, [int(size / crop_pct)], interpolation=InterpolationMode(mode), antialias=True)
    expected = tvf.center_crop(resized, [size, size])
    torch.testing.assert_close(decode(scene(*shape), Frame(size, crop_pct, mode)), expected, rtol=0, atol=0)


def test_an_image_of_the_size_is_not_touched() -> None:
    image = picture(8, 32, 32)
    np.testing.assert_array_equal(decode(encode(image), Frame(32)).permute(1, 2, 0), np.asarray(image))


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ((0,), (8, 0), (8, 1, "cubic")):
        with pytest.raises(ValueError, match=r"crop_pct|interpolation"):
            Frame(*wrong)
    with pytest.raises(RejectedImageError, match="more than 100"):
        decode(jpeg(), Frame(8), max_pixels=100)


def test_masks_keep_their_values() -> None:
    values = np.random.default_rng(1).integers(0, 21, (40, 60), dtype=np.uint8)
    coloured = Image.fromarray(values).convert("P")
    for image in (Image.fromarray(values), coloured, Image.fromarray(values.astype(np.uint16))):
        assert set(np.unique(decode_mask(encode(image), Frame(24)))) <= set(range(21))
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(values[:, :40])), Frame(40))[0], values[:, :40])
    for wrong in (encode(picture()), encode(Image.fromarray(wide))):
        with pytest.raises(RejectedImageError, match="not a mask"):
            decode_mask(wrong, Frame(24))


def test_an_image_and_its_mask_stay_together() -> None:
    square = np.zeros((60, 90), np.uint8)
    square[15:45, 30:60] = 255
    image, mask = (make(encode(Image.fromarray(square)), Frame(30, 0.8))[0] for make in (decode, decode_mask))
    assert ((image > 127) == (mask > 127)).float().mean() > 0.97


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}])
def test_a_damaged_jpeg_is_refused_or_what_pillow_makes_of_it(options: dict[str, Any]) -> None:
    """libjpeg-turbo is asked to be strict, and Pillow judges what it will not have: two decoders, one answer."""
    rng = np.random.default_rng(5)
    data = encode(picture(0, 90, 60), "JPEG", **options)
    kept = 0
    for _ in range(150):
        damaged = bytearray(data)
        for at in rng.integers(3, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(256)
        try:
            found = decode_full_size(bytes(damaged))
        except RejectedImageError:
            continue
        kept += 1
        np.testing.assert_array_equal(found, by_pillow(bytes(damaged), upright=True))
    assert 20 < kept < 150


@pytest.mark.parametrize("turn", range(1, 9))
def test_scaled_decoding_turns_as_full_decoding_does(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encode(picture(1, 8, 6).resize((160, 120), Image.Resampling.BICUBIC), "JPEG", exif=exif)
    full, scaled = (decode(data, Frame(24), scaled=one).float() for one in (False, True))
    assert (full - scaled).abs().mean() < 3


def test_damaged_bytes_never_end_the_process() -> None:
    """torchvision's PNG decoder does that; ours, fuzzed in a process of its own, answers with pixels or RejectedImageError."""
    code = """
import random
from engine.images.errors import RejectedImageError
from engine.images.decode import Frame, decode
from tests.images.making import encode, picture
rng = random.Random(0)
kinds = [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("WEBP", {}), ("BMP", {}), ("TIFF", {})]
for kind, options in kinds:
    data = encode(picture(0, 40, 30), kind, **options)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 4, 40))):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode(bytes(damaged[: rng.choice((len(data), rng.randrange(1, len(data))))]), Frame(16))
        except RejectedImageError:
            pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
