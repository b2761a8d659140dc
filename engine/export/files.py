"""Shared by all exports: CSV lines, exact or for spreadsheets, and a check that nothing is overwritten."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from engine.ground import storage
from engine.labels.cells import DEFUSED, cell


def csv_lines(rows: Iterable[Sequence[Any]], header: Sequence[str] = (), spreadsheets: bool = False) -> bytes:
    """A header, if any, and rows as CSV (RFC 4180).

    `spreadsheets`: text that a spreadsheet would run as a formula is prefixed with an apostrophe, and a last column says so.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    if not spreadsheets:
        writer.writerows([header, *rows] if header else rows)
        return text.getvalue().encode()
    if header:
        writer.writerow([*map(cell, header), DEFUSED])
    writer.writerows([*(cell(value) if isinstance(value, str) else value for value in row), "'"] for row in rows)
    return text.getvalue().encode()


def check_absent(uri: str) -> None:
    """Raise ValueError when `uri` exists."""
    if storage.exists(*storage.resolve(uri)):
        raise ValueError(f"{uri}: already exists. Choose another path, or remove it.")
