"""Ranks of pseudo-labels that were put together from several tables: 0 is the best of its class."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.tables import schema


def ranked_by_class(table: pa.Table, *keys: npt.NDArray) -> pa.Table:
    """`table` (schema.pseudo_labels) sorted by class and then by `keys` (N,), the last of which counts most; `rank` runs on from 0 in each class."""
    classes = table["class"].to_numpy().astype(np.int64)
    order = np.lexsort((*keys, classes))
    ranks = np.arange(len(order)) - np.searchsorted(classes[order], classes[order])
    return schema.with_column(table.take(pa.array(order)).combine_chunks(), "rank", pa.array(ranks.astype(np.int32)))
