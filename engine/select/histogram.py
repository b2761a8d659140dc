"""How many rows of each class stand at each score: the one small table from which every threshold and preview follows.

Scores are float16, so counting every (class, score) that occurs is exact; the counts are integers, so the sum over parts
is the same for every split. A billion rows of a thousand classes make a few million cells.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.select.scores import Half, ScoreOrder, order_of, probability, score_of
from engine.tables.schema import class_type

PENDING_ROWS = 1 << 20
"""Rows gathered at least before they are counted into the table."""

Counts = npt.NDArray[np.int64]


class Histogram:
    """Counts of the (class, score) pairs seen. Mergeable and picklable."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._cells = np.empty(0, np.uint64)  # class, then 16 bits in the order of scores; sorted
        self._counts = np.empty(0, np.int64)
        self._pending: list[npt.NDArray[np.uint64]] = []
        self._num_pending = 0
        self._sums: tuple[Counts, npt.NDArray[np.intp], npt.NDArray[np.intp]] | None = None

    def update(self, classes: npt.NDArray[np.unsignedinteger], scores: Half) -> None:
        """Count N rows: `classes` and `scores` of one shape."""
        cells = (classes.astype(np.uint64) << np.uint64(16)) | order_of(scores)
        self._pending.append(cells.reshape(-1))
        self._num_pending += cells.size
        if self._num_pending >= max(
            PENDING_ROWS, len(self._cells)
        ):  # as long as the table, so that merging is amortised
            self._settle()

    def merge(self, other: "Histogram") -> None:
        """Add the counts of `other`."""
        if self.num_classes != other.num_classes:
            raise ValueError(f"cannot merge histograms of {other.num_classes} and {self.num_classes} classes")
        self._settle()
        other._settle()
        self._add(other._cells, other._counts)

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """Class of each cell; cells are sorted by class, then score upwards."""
        self._settle()
        return (self._cells >> np.uint64(16)).astype(np.int64)

    @property
    def order(self) -> ScoreOrder:
        """Score of each cell, as order."""
        self._settle()
        return self._cells.astype(np.uint16)

    @property
    def counts(self) -> Counts:
        """Rows in each cell."""
        self._settle()
        return self._counts

    @property
    def total(self) -> Counts:
        """Rows of each class (C,)."""
        running, starts, ends = self._running()
        return running[ends] - running[starts]

    def above(self, cut: Half | np.float16) -> Counts:
        """Rows of each class (C,) whose score exceeds the cut: one score for all classes or (C,) one each."""
        running, _, ends = self._running()
        cells = _first_cells(self.num_classes)[:-1] | order_of(_each(cut, self.num_classes))
        return running[ends] - running[np.searchsorted(self._cells, cells, side="right")]

    def kth_best(self, k: int | Counts) -> Half:
        """The K-th best score of each class (C,), K for all classes or (C,) one each; -NaN, below every number, where a class has
        fewer rows."""
        running, _, ends = self._running()
        wanted = np.broadcast_to(np.asarray(k, np.int64), self.num_classes)
        enough = np.flatnonzero(self.total >= wanted)
        # of the rows of a class all but K - 1 lie at or below its K-th best: the last cell with no more rows before it
        cell = np.searchsorted(running, (running[ends] - wanted)[enough], side="right") - 1
        order = np.zeros(self.num_classes, np.uint16)
        order[enough] = self._cells[cell].astype(np.uint16)
        return score_of(order)

    def probability_sum(self) -> npt.NDArray[np.float64]:
        """Sum of the probabilities of each class's rows (C,)."""
        weights = self.counts * probability(score_of(self.order))
        return np.bincount(self.classes, weights, minlength=self.num_classes).astype(np.float64)

    def table(self) -> pa.Table:
        """Columns `class`, `score`, `count`, as kept beside predictions for previews."""
        return pa.table(
            {
                "class": pa.array(self.classes).cast(class_type(self.num_classes)),
                "score": pa.array(score_of(self.order)),
                "count": pa.array(self.counts),
            }
        )

    @classmethod
    def of(cls, table: pa.Table, num_classes: int) -> "Histogram":
        """The histogram that `table` wrote: its cells are sorted and distinct."""
        made = cls(num_classes)
        made._cells = np.asarray(table["class"]).astype(np.uint64) << np.uint64(16) | order_of(
            np.asarray(table["score"])
        )
        made._counts = np.asarray(table["count"])
        return made

    def _running(self) -> tuple[Counts, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Rows before each cell and after the last (M + 1,), and the first and last cell of each class (C,): every question is a
        binary search, whatever the number of rows or cells."""
        self._settle()
        if self._sums is None:
            bounds = np.searchsorted(self._cells, _first_cells(self.num_classes))
            self._sums = np.concatenate([[0], np.cumsum(self._counts)]), bounds[:-1], bounds[1:]
        return self._sums

    def _settle(self) -> None:
        if self._pending:
            cells = np.sort(np.concatenate(self._pending))
            self._pending, self._num_pending = [], 0
            starts = np.flatnonzero(np.diff(cells, prepend=~cells[:1]))
            self._add(cells[starts], np.diff(starts, append=len(cells)))

    def _add(self, cells: npt.NDArray[np.uint64], counts: Counts) -> None:
        """Add sorted, distinct cells."""
        merged = np.union1d(self._cells, cells)
        total = np.zeros(len(merged), np.int64)
        total[np.searchsorted(merged, self._cells)] += self._counts
        total[np.searchsorted(merged, cells)] += counts
        self._cells, self._counts, self._sums = merged, total, None


def _first_cells(num_classes: int) -> npt.NDArray[np.uint64]:
    """The least cell of each class, and of the one after the last (C + 1,)."""
    return np.arange(num_classes + 1, dtype=np.uint64) << np.uint64(16)


def _each(value: Half | np.float16, num_classes: int) -> Half:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(value, np.float16), num_classes))
