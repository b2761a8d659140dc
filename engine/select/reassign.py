"""Noisy Student's way with later teachers: the images chosen once stay chosen, only what they are labelled with is asked again."""

import numpy as np
import pyarrow as pa

from engine.select.scores import order_of, tie_hash
from engine.select.sticky import addresses


def reassign(filtered: pa.Table, fresh: pa.Table) -> pa.Table:
    """The images of `filtered` with the class, score and target that `fresh` gives them; how often each is drawn stays.

    Both are `schema.pseudo_labels` with one row an image; ranks are those of the new classes. An image that `fresh` lacks, because it could not be
    read this time, is left out. Raises ValueError when an image stands in a table twice.
    """
    if not filtered.schema.equals(fresh.schema, check_metadata=True):
        raise ValueError("pseudo-labels of the two teachers differ in schema or class list")
    old, new = addresses(filtered), addresses(fresh)
    if len(np.unique(old)) < len(old) or len(np.unique(new)) < len(new):
        raise ValueError("relabel=filtered gives an image one label: set select.classes_per_image=1")
    order = np.argsort(new, kind="stable")
    place = np.minimum(np.searchsorted(new[order], old), max(0, len(new) - 1))
    known = np.flatnonzero(new[order][place] == old) if len(new) else np.empty(0, np.int64)
    table = fresh.take(pa.array(order[place[known]]))
    table = _replaced(table, "count", filtered["count"].combine_chunks().take(pa.array(known)))
    classes, score = table["class"].to_numpy().astype(np.int64), table["score"].to_numpy()
    tie = tie_hash(table["shard"].to_numpy(), table["row"].to_numpy())
    order = np.lexsort((tie, -order_of(score).astype(np.int64), classes))
    starts = np.searchsorted(classes[order], classes[order])
    rank = pa.array((np.arange(len(order)) - starts).astype(np.int32))
    return _replaced(table.take(pa.array(order)), "rank", rank)


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)
