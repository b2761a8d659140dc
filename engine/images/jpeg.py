"""The header of a JPEG: its size and components, known before a pixel is decoded."""

from typing import NamedTuple

from engine.images.bad import BadImage

MAGIC = b"\xff\xd8\xff"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers: all processes, without the tables (DHT, DAC) and the extension that share their range."""
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length."""


class Header(NamedTuple):
    """Width and height in pixels as stored (before EXIF orientation), number of components, bits a sample."""

    width: int
    height: int
    components: int
    bits: int


def header(data: memoryview) -> Header:
    """Walk the markers up to the frame; a few microseconds. Raises BadImage("truncated" or "corrupt") when there is no
    frame."""
    at, end = 2, len(data)
    while at + 4 <= end:
        if data[at] != 0xFF:
            raise BadImage("corrupt", f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            if at + 10 > end:
                break
            return Header(
                data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6], data[at + 9], data[at + 4]
            )
        elif marker in (0xDA, 0xD9):
            raise BadImage("corrupt", "JPEG without a frame header")
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    raise BadImage("truncated", "JPEG ends inside its header")
