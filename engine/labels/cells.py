"""Text for spreadsheets: a cell that would run as a formula is prefixed with an apostrophe.

Only on request: everywhere else a key is a key. Files that were written so have the column `defused`, by which `read_table` turns them back.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DEFUSED = "defused"
"""The column that marks a file of such cells; its values say how: an apostrophe."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """`text` as a cell that no spreadsheet runs as a formula; one-to-one, so text that begins with an apostrophe gets another."""
    return "'" + text if text.startswith(("'", *FORMULA)) else text


def plain(text: str) -> str:
    """The inverse of `cell`."""
    return text.removeprefix("'")


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`plain` of a column of strings."""
    marked = pc.fill_null(pc.starts_with(column, "'"), False)
    if not pc.any(marked).as_py():
        return column
    positions = np.flatnonzero(np.asarray(marked))
    values = column.to_pylist()
    for position in positions:
        values[position] = plain(values[position])
    return pa.chunked_array([pa.array(values, pa.string())])
