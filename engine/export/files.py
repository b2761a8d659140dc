"""What every export shares: lines of CSV that a spreadsheet does not run, and files that are never overwritten."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from engine.ground import storage
from engine.labels.cells import cell


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as CSV (RFC 4180); text that a spreadsheet would run as a formula gets an apostrophe before it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([cell(value) if isinstance(value, str) else value for value in row] for row in rows)
    return text.getvalue().encode()


def check_absent(uri: str) -> None:
    """Raises ValueError when a file stands at `uri`."""
    if storage.exists(*storage.resolve(uri)):
        raise ValueError(f"{uri}: is there already; name another place, or remove it")
