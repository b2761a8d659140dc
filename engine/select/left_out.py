"""Images that a selection leaves out, as addresses in one sorted array."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Addresses = npt.NDArray[np.int64]
"""Shard in the upper 32 bits, row in the lower."""


def addresses(table: pa.Table) -> Addresses:
    """(shard, row) of each row as one integer (N,)."""
    return table["shard"].to_numpy().astype(np.int64) << 32 | table["row"].to_numpy()


def among(wanted: Addresses, known: Addresses) -> npt.NDArray[np.bool_]:
    """Which of `wanted` (N,) stand in `known`, sorted."""
    if not known.size:
        return np.zeros(wanted.size, np.bool_)
    return known[np.minimum(np.searchsorted(known, wanted), known.size - 1)] == wanted


def without(table: pa.Table, left_out: Addresses) -> pa.Table:
    """The rows of a table with `shard` and `row` that are not left out, `left_out` sorted."""
    if not left_out.size:
        return table
    out = among(addresses(table), left_out)
    return table.filter(pa.array(~out)) if out.any() else table
