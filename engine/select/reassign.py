"""Noisy Student's way with later teachers: the images chosen once stay chosen, only what they are labelled with is asked again."""

import numpy as np
import pyarrow as pa

from engine.ground.steps import Output, Part, Step, read_tables
from engine.select.addresses import addresses
from engine.select.ranks import ranked_by_class
from engine.select.scores import order_of, tie_hash
from engine.tables import schema


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
    table = schema.with_column(table, "count", filtered["count"].combine_chunks().take(pa.array(known)))
    tie = tie_hash(table["shard"].to_numpy(), table["row"].to_numpy())
    return ranked_by_class(table, tie, -order_of(table["score"].to_numpy()).astype(np.int64))


def put_reassigned(filtered: Output, fresh: Output, step: Step) -> Part:
    """The one part of a selection that `reassign` made of two others, on a worker: ranks are those of whole classes."""
    tables = (pa.concat_tables(table for _, table in read_tables(one, step.fs)) for one in (filtered, fresh))
    return step.put_part(0, reassign(*tables))
