"""Which files are images: the endings of their names, and the formats that Pillow may decode."""

import posixpath
from collections import Counter
from collections.abc import Sequence

try:
    import pillow_heif
except ImportError:
    HEIF: tuple[str, ...] = ()
else:
    pillow_heif.register_heif_opener()
    HEIF = (".heic", ".heif", ".hif")
"""Endings of HEIC files where the extra `heif` is installed."""

EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".avif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".jp2",
    ".ico",
    ".mpo",
    *HEIF,
)

# What is photographed, drawn or exported; without formats that start other programs (EPS) or accept any bytes (TGA).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "PPM", "ICO", "JPEG2000") + ("HEIF",) * bool(
    HEIF
)

UNREADABLE = {
    ".heic": "install the extra heif",
    ".heif": "install the extra heif",
    ".hif": "install the extra heif",
    **dict.fromkeys((".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"), "convert them to JPEG"),
}
"""Endings of pictures that cannot be decoded, and what to do."""

NO_ENDING, OTHER_ENDING = "no ending", "other endings"
MAX_REASONS, SHOWN = 50, 6
MAX_NAME_BYTES = 8192
"""Longest name of an image and longest label: longer ones are no names, and would be copied into every table."""
TOO_LONG = f"name of more than {MAX_NAME_BYTES:,} bytes"


def with_dots(extensions: Sequence[str] | None) -> tuple[str, ...]:
    """Endings as they are compared: lower case with a dot; "" for names without any, which are asked for by a lone dot. The default is all known
    ones."""
    return (
        EXTENSIONS if extensions is None else tuple("." + e.lower().lstrip(".") if e != "." else "" for e in extensions)
    )


def ending(path: str) -> str:
    """The ending of a file name as it is counted: `.txt`, or a phrase."""
    last = posixpath.splitext(path)[1].lower()
    if not last:
        return NO_ENDING
    return last if last[1:].isalnum() and len(last) <= 12 else OTHER_ENDING


def split_member(name: str, extensions: tuple[str, ...], more: Sequence[str]) -> tuple[str, str]:
    """The name of the sample and the ending, `.jpg` or `.seg.png`, of a file of a WebDataset.

    An ending begins at the first dot after which every part begins with a letter, so `photo.2021.05.01.jpg` is a `.jpg`. `extensions` that the
    settings name, and `more`, those of labels, end where they say.
    """
    lower = name.lower()
    if extensions is not EXTENSIONS:
        for known in sorted((*extensions, *more), key=len, reverse=True):
            if known and lower.endswith(known):
                return name[: -len(known)], known
        if "" in extensions and "." not in name:
            return name, ""
    parts = name.split(".")
    first = len(parts)
    while first > 1 and parts[first - 1][:1].isalpha():
        first -= 1
    return ".".join(parts[:first]), "".join(f".{part}" for part in parts[first:]).lower()


def shorten(ignored: Counter[str]) -> dict[str, int]:
    """The counts by reason, most first; rare endings together."""
    often = dict(ignored.most_common(MAX_REASONS))
    if rest := ignored.total() - sum(often.values()):
        often[OTHER_ENDING] = often.get(OTHER_ENDING, 0) + rest
    return often


def explain_ignored(ignored: dict[str, int]) -> str:
    """`12 files ignored: 10 .txt, 2 .heic (install the extra heif)`."""
    named = sorted(ignored.items(), key=lambda item: (item[0] not in UNREADABLE, -item[1]))
    parts = [f"{count:,} {name}" + (f" ({UNREADABLE[name]})" if name in UNREADABLE else "") for name, count in named]
    more = f" and {len(parts) - SHOWN} more reasons" if len(parts) > SHOWN else ""
    total = sum(ignored.values())
    return f"{total:,} file{'s' * (total != 1)} ignored: {', '.join(parts[:SHOWN])}{more}"
