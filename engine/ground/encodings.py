"""Text that others wrote: UTF-8, what a byte order mark says, or the encoding that is named; and one form for letters with accents."""

import codecs
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

from engine.ground import storage

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(head: bytes, named: str | None = None) -> str:
    """The encoding of a file from its first 4 bytes: by its mark, as named, UTF-16 where every second byte is zero, else UTF-8."""
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return encoding
    if named is not None:
        return named
    zeros = "".join("0" if byte == 0 else "x" for byte in head[:4])
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(zeros, "utf-8")


def read_text(fs: storage.FileSystem, path: str, named: str | None = None) -> str:
    """A whole file as text. Raises ValueError that names its first line in another encoding."""
    data = storage.get(fs, path)
    try:
        return data.decode(encoding_of(data[:4], named))
    except UnicodeDecodeError as error:
        raise ValueError(explain(path, data, error)) from None


def explain(path: str, data: bytes, error: UnicodeDecodeError) -> str:
    """Which line of a file is not text, and what to do."""
    line = data.count(b"\n", 0, error.start) + 1
    near = data[max(0, error.start - 20) : error.start + 5]
    return (
        f"{path}: line {line} is not {error.encoding.upper()} text (near {near!r}). Save it as UTF-8, "
        "or name its encoding with data.encoding, such as latin-1 or cp1252."
    )


def find_undecodable(fs: storage.FileSystem, path: str, named: str | None = None) -> str | None:
    """`explain` of a file that cannot be decoded; None for one that can."""
    try:
        read_text(fs, path, named)
    except ValueError as error:
        return str(error)
    return None


def composed(text: str) -> str:
    """`text` with accents in the letters (NFC): macOS and some archives write them as letters of their own, which look the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def compose(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`composed` of a column of strings."""
    if pc.all(pc.string_is_ascii(column)).as_py() in (True, None):
        return column
    return pc.utf8_normalize(column, form="NFC")
