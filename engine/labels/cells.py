"""Text that goes through a person's spreadsheet and back: a cell that would run as a formula gets an apostrophe before it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """`text` as a spreadsheet may show it without running it."""
    return "'" + text if text.startswith(FORMULA) else text


def plain(text: str) -> str:
    """The text that `cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA) else text


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`plain` of a column of strings."""
    marked = pc.fill_null(pc.starts_with(column, "'"), False)
    if not pc.any(marked).as_py():
        return column
    places = np.flatnonzero(np.asarray(marked))
    values = column.to_pylist()
    for place in places:
        values[place] = plain(values[place])
    return pa.chunked_array([pa.array(values, pa.string())])
