"""The header of a JPEG: size, components and orientation, read without decoding."""

from typing import NamedTuple

from PIL import Image

from engine.images.errors import RejectedImageError

MAGIC = b"\xff\xd8\xff"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers: all processes, without the tables (DHT, DAC) and the extension that share their range."""
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""
_EXIF, _ORIENTATION = b"Exif\0\0", 0x0112


class Header(NamedTuple):
    """Width and height in pixels as stored (before EXIF orientation), number of components, bits per sample, EXIF orientation (1: as stored)."""

    width: int
    height: int
    components: int
    bits: int
    orientation: int


def header(data: memoryview) -> Header:
    """The header, found by walking the markers up to the frame. Raises RejectedImageError ("truncated" or "corrupt") when
    there is no frame."""
    at, end, exif = 2, len(data), None
    while at + 4 <= end:
        if data[at] != 0xFF:
            raise RejectedImageError("corrupt", f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            if at + 10 > end:
                break
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            return Header(width, height, data[at + 9], data[at + 4], 1 if exif is None else _orientation(exif))
        elif marker in (0xDA, 0xD9):
            raise RejectedImageError("corrupt", "JPEG without a frame header")
        else:
            after = at + 2 + (data[at + 2] << 8 | data[at + 3])
            if marker == 0xE1 and exif is None and data[at + 4 : at + 10] == _EXIF:
                exif = data[at + 4 : after]
            at = after
    raise RejectedImageError("truncated", "JPEG ends inside its header")


def _orientation(exif: memoryview) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing or unreadable, as in decoders."""
    try:
        found = Image.Exif()
        found.load(bytes(exif))
        orientation = found.get(_ORIENTATION)
    except Exception:  # Pillow's parser raises many kinds of errors
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
