"""The exact top-K for a K too large to hold: count, sift, then rank a few classes at a time.

1. `ScoreBins` counts the candidates of each class by score, 32 neighbouring float16 values to a bin: 16 KB a class.
2. The bin that holds the K-th best is the lowest that matters. `filter_candidates` keeps a part's candidates from there upwards, sorted
   by class: little more than K of each class in all, and they go to the disk.
3. `rank_candidates` is the streaming top-K of a few classes over what was kept, so the answer is its answer, ties included.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.select.blocks import Counts
from engine.select.scores import Half, ScoreOrder, binary, matrix, order_of
from engine.select.select import Candidates, Selector
from engine.select.topk import TopK, Winners
from engine.tables import schema

BIN_BITS = 5
BINS = 1 << (16 - BIN_BITS)
IMAGES = b"images"


class ScoreBins:
    """How many candidates above its floor each class has in each bin of scores, and how many images were looked at."""

    def __init__(self, floor: Half) -> None:
        self.images = 0
        self.counts = np.zeros((len(floor), BINS), np.int64)
        self._floor = order_of(floor)

    def update(self, classes: npt.NDArray[np.unsignedinteger], scores: Half) -> None:
        """Count N candidates."""
        index, order = classes.astype(np.intp), order_of(scores)
        above = np.flatnonzero(order > self._floor.take(index))
        np.add.at(self.counts.reshape(-1), index.take(above) * BINS + (order.take(above) >> BIN_BITS), 1)

    def merge(self, table: pa.Table) -> None:
        """Add what another has counted, from its table."""
        self.counts.reshape(-1)[table["cell"].to_numpy()] += table["count"].to_numpy()
        self.images += int(table.schema.metadata[IMAGES])

    def table(self) -> pa.Table:
        """Columns `cell`, `count` of the bins that are not empty."""
        flat = self.counts.reshape(-1)
        cells = np.flatnonzero(flat)
        return pa.table({"cell": cells, "count": flat[cells]}, metadata={IMAGES: str(self.images)})

    @property
    def available(self) -> Counts:
        """Candidates of each class above its floor (C,)."""
        return self.counts.sum(axis=1)

    def lowest(self, quota: Counts | None) -> ScoreOrder:
        """For each class the least order that can be among its K best (C,), K = `quota` (C,)."""
        if quota is None:
            return np.zeros(len(self.counts), np.uint16)
        at_or_above = np.cumsum(self.counts[:, ::-1], axis=1)[:, ::-1]
        reached = (at_or_above >= quota[:, None]).sum(axis=1)  # bins from the lowest up to the one with the K-th best
        return (np.maximum(reached - 1, 0) << BIN_BITS).astype(np.uint16)


def filter_candidates(candidates: Iterable[Candidates], floor: Half, lowest: ScoreOrder) -> pa.Table:
    """The candidates strictly above `floor` (C,) and from `lowest` (C,) upwards, sorted by class: columns `class`, `score`, `shard`,
    `row`, and one of fixed-size binary for each other array of the candidates."""
    at_least = np.maximum(lowest.astype(np.int32), order_of(floor).astype(np.int32) + 1)
    kept = []
    for columns in candidates:
        passing = np.flatnonzero(order_of(columns[1]) >= at_least.take(columns[0].astype(np.intp)))
        kept.append([column.take(passing, axis=0) for column in columns])
    if not kept:
        return pa.table({"class": pa.array([], pa.uint32())})
    classes, score, shard, row, *payload = (np.concatenate(column) for column in zip(*kept, strict=True))
    order = np.argsort(classes, kind="stable")
    table = {"class": classes.astype(np.uint32), "score": score, "shard": shard, "row": row}
    taken = {name: pa.array(column.take(order)) for name, column in table.items()}
    return pa.table(taken | {f"payload {i}": binary(one.take(order, axis=0)) for i, one in enumerate(payload)})


def rank_candidates(
    tables: Iterable[pa.Table], selector: Selector, quota: Counts | None, first: int, end: int
) -> Winners:
    """The winners among the classes [first, end) from tables of `filter_candidates`: the K best of each, K = `quota` (C,)."""
    num_classes = len(selector.classes)
    mine = np.arange(num_classes)
    k = None if quota is None else np.where((mine >= first) & (mine < end), quota, 0)
    top_k = TopK(num_classes, k, selector.rule.cuts)
    kinds = [schema.class_dtype(num_classes), np.dtype(np.float16), np.dtype(np.float16)]
    for table in tables:
        if not table.num_rows:
            continue
        classes = table["class"].to_numpy().astype(kinds[0])
        score, shard, row = (table[name].to_numpy() for name in ("score", "shard", "row"))
        payload = [matrix(table, name, kind) for name, kind in zip(table.column_names[4:], kinds, strict=False)]
        top_k.update(classes, score, shard, row, payload)
    return top_k.result()
