"""The exact top-K for a K too large to hold: cuts from the histogram first, then one filter pass that writes as it reads.

Rows above their class's cut are chosen on sight; only rows that equal it wait, and of those no more than there is room for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.select.histogram import Cuts
from engine.select.scores import order_of, tie_hash
from engine.select.topk import best_first

SLACK_ROWS = 1 << 18


class Filter:
    """The second pass over the rows that the histogram behind `cuts` has counted. Mergeable and picklable."""

    def __init__(self, cuts: Cuts) -> None:
        self.cuts = cuts
        self._cut = order_of(cuts.score)
        self._waiting: list[list[npt.NDArray[Any]]] = []
        self._num_waiting = 0

    def update(
        self,
        classes: npt.NDArray[np.unsignedinteger],
        scores: npt.NDArray[np.float16],
        shard: npt.NDArray[np.int32],
        row: npt.NDArray[np.int32],
        payload: Sequence[npt.NDArray[Any]] = (),
    ) -> npt.NDArray[np.intp]:
        """Places of the rows chosen on sight; rows equal to the cut are kept back with their payload."""
        index = classes.astype(np.intp)
        order = order_of(scores)
        cut = self._cut.take(index)
        equal = np.flatnonzero((order == cut) & (self.cuts.room.take(index) > 0))
        tie = tie_hash(shard.take(equal), row.take(equal))
        columns = [classes, scores, shard, row, *payload]
        self._wait([tie, *(column.take(equal, axis=0) for column in columns)])
        return np.flatnonzero(order > cut)

    def merge(self, other: "Filter") -> None:
        """Take in the rows that `other` keeps back."""
        for rows in other._waiting:
            self._wait(rows)

    def finish(self) -> list[npt.NDArray[Any]] | None:
        """Class, score, shard, row and payload of the rows equal to a cut that are chosen; None when no row equals one."""
        self._thin()
        return self._waiting[0][1:] if self._waiting else None

    def _wait(self, rows: list[npt.NDArray[Any]]) -> None:
        if len(rows[0]):
            self._waiting.append(rows)
            self._num_waiting += len(rows[0])
            if self._num_waiting > 2 * self.cuts.room.sum() + SLACK_ROWS:
                self._thin()

    def _thin(self) -> None:
        """Keep of each class only as many rows as there is room for, the smallest hashes."""
        if not self._waiting:
            return
        tie, classes, *rest = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        ranked = best_first(classes.astype(np.uint32), tie)
        sorted_classes = classes.take(ranked).astype(np.intp)
        count = np.bincount(sorted_classes, minlength=len(self.cuts.room))
        place = np.arange(len(ranked)) - (np.cumsum(count) - count).take(sorted_classes)
        ranked = ranked[place < self.cuts.room.take(sorted_classes)]
        self._waiting = [[column.take(ranked, axis=0) for column in (tie, classes, *rest)]]
        self._num_waiting = len(ranked)
