"""The exact K best rows of every class, streamed: memory O(classes x K), whatever the number of rows.

Rows that beat their class's running cut are appended to one log; when the log is half as long again as everything that
can be kept, it is compacted: one sort of (class, score) integers finds every class's K-th score, a filter keeps the
better rows, and the cuts rise. Ranking is by score, then by the hash of the address, so that the result is the same for
any split, order and number of workers.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.select.blocks import Counts, Index, Key, Rows, RunningCuts, Ties, class_of, order_in
from engine.select.scores import LOWEST, address_of, order_of, score_of
from engine.tables.schema import class_dtype

try:  # the compiled loops where numba is there, the same in numpy where it is not or where it cannot cache
    from engine.select import kernel as loops
except (ImportError, RuntimeError):
    from engine.select import blocks as loops  # type: ignore[no-redef]

SLACK_ROWS = 1 << 18
"""Least number of rows between two compactions: below this their fixed cost would show."""
BLOCK_ROWS = 1 << 16


class Winners(NamedTuple):
    """The kept rows, sorted by class, then best first; arrays of one length."""

    classes: npt.NDArray[Any]
    """uint16, or uint32 beyond 65,536 classes."""
    scores: npt.NDArray[np.float16]
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]
    """0 is the best of its class."""
    payload: tuple[npt.NDArray[Any], ...]


class TopK:
    """Running K best rows of each of `num_classes` classes: one K for all, or (C,) one each; None keeps every row above
    the floor.

    `floor` is what a row's score must exceed, strictly: one float16 log-odds for all classes or (C,) one each. Mergeable
    and picklable.
    """

    def __init__(
        self, num_classes: int, k: int | Counts | None, floor: np.float16 | npt.NDArray[np.float16] = LOWEST
    ) -> None:
        self.num_classes = num_classes
        self.k: Counts | None = None if k is None else np.array(np.broadcast_to(k, num_classes), np.int64)
        self.available = np.zeros(num_classes, dtype=np.int64)
        """Rows above the floor seen so far, by class."""
        floors = np.broadcast_to(np.asarray(floor, np.float16), num_classes)
        self._floor = order_of(np.ascontiguousarray(floors))
        # A row passes with a score above its class's cut, or equal to it and with a smaller hash. The floor is strict:
        # no hash is smaller than 0.
        self._cut = self._floor.copy()
        self._tie_cut = np.zeros(num_classes, np.uint64)
        self._limit = 1 << 62 if self.k is None else log_rows(self.k)
        """Rows the log may hold before it is compacted."""
        self._size = 0
        self._key: Key = np.empty(0, np.uint32 if num_classes <= 1 << 16 else np.uint64)
        self._tie = np.empty(0, np.uint64)
        self._payload: list[npt.NDArray[Any]] | None = None

    def update(
        self,
        classes: npt.NDArray[np.unsignedinteger],
        scores: npt.NDArray[np.float16],
        shard: npt.NDArray[np.int32],
        row: npt.NDArray[np.int32],
        payload: Sequence[npt.NDArray[Any]] = (),
    ) -> None:
        """Take in N rows (every array of length N); `payload` travels with the winners. NaN is not checked for."""
        for block in _blocks(len(classes)):
            rows = Rows(classes[block], scores[block], shard[block], row[block])
            cuts = RunningCuts(self._floor, self._cut, self._tie_cut)
            index, order, tie, place = loops.scan(rows, cuts, self.available)
            key = (index.astype(self._key.dtype) << 16) | ~order
            self._admit([key, tie, *(column[block].take(place, axis=0) for column in payload)])

    def merge(self, other: "TopK") -> None:
        """Take in what `other` has seen: same classes, K and floor."""
        if self._asked() != other._asked() or not np.array_equal(self._floor, other._floor):
            raise ValueError(
                f"cannot merge {other._asked()} into {self._asked()} (or their thresholds differ): selections of other settings"
            )
        self.available += other.available
        for block in _blocks(other._size):
            rows = [column[block] for column in other._columns()]
            index, order = class_of(rows[0]), order_in(rows[0])
            cut = self._cut.take(index)
            keep = np.flatnonzero((order > cut) | ((order == cut) & (rows[1] < self._tie_cut.take(index))))
            self._admit([column.take(keep, axis=0) for column in rows])

    def result(self) -> Winners:
        """The winners so far. Raises ValueError when an image came twice for one class: a shard was fed twice."""
        self._compact()
        key, tie, *payload = self._columns()
        ranked = best_first(key, tie)
        classes = np.empty(self._size, class_dtype(self.num_classes))
        order = np.empty(self._size, np.uint16)
        shard, row, rank = (np.empty(self._size, np.int32) for _ in range(3))
        starts = np.cumsum(np.bincount(class_of(key), minlength=self.num_classes))
        for block in _blocks(self._size):
            ordered = key.take(ranked[block])
            index = class_of(ordered)
            classes[block], order[block] = index, order_in(ordered)
            shard[block], row[block] = address_of(tie.take(ranked[block]))
            rank[block] = np.arange(block.start, block.stop) - np.where(index > 0, starts.take(index - 1), 0)
        again = (classes[1:] == classes[:-1]) & (shard[1:] == shard[:-1]) & (row[1:] == row[:-1])
        if again.any():
            first = int(np.argmax(again))
            raise ValueError(
                f"shard {shard[first]} row {row[first]} was counted twice: its predictions were read twice"
            )
        kept = tuple(column.take(ranked, axis=0) for column in payload)
        return Winners(classes, score_of(order), shard, row, rank, kept)

    def __getstate__(self) -> dict[str, Any]:
        """What travels between workers: the kept rows without the log's spare room."""
        self._compact()
        key, tie, *payload = (column.copy() for column in self._columns())
        return self.__dict__ | {"_key": key, "_tie": tie, "_payload": None if self._payload is None else payload}

    def _asked(self) -> str:
        """What is asked for, in words."""
        each = (
            "all" if self.k is None else f"top-{self.k[0]}" if (self.k == self.k[0]).all() else f"top-{self.k.tolist()}"
        )
        return f"{each} of {self.num_classes} classes"

    def _columns(self) -> list[npt.NDArray[Any]]:
        """Key, tie and payload of the rows in the log; views."""
        return [column[: self._size] for column in (self._key, self._tie, *(self._payload or ()))]

    def _admit(self, rows: list[npt.NDArray[Any]]) -> None:
        """Append rows (key, tie, payload) that beat their class's cut."""
        while len(rows[0]):
            if self._size == self._limit:
                self._compact()
            room = self._limit - self._size
            self._append([column[:room] for column in rows])
            rows = [column[room:] for column in rows]

    def _append(self, rows: list[npt.NDArray[Any]]) -> None:
        """Write rows (key, tie, payload) behind the log, which grows as it must."""
        _, _, *payload = rows
        end = self._size + len(rows[0])
        if self._payload is None:
            self._payload = [np.empty((0, *column.shape[1:]), column.dtype) for column in payload]
        if end > len(self._tie):  # memory not yet touched costs nothing, so doubling does not raise the peak
            length = min(max(2 * len(self._tie), end, SLACK_ROWS), self._limit)
            self._key, self._tie = _grown(self._key, length), _grown(self._tie, length)
            self._payload = [_grown(column, length) for column in self._payload]
        for column, more in zip((self._key, self._tie, *self._payload), rows, strict=True):
            column[self._size : end] = more
        self._size = end

    def _compact(self) -> None:
        """Keep the K best rows of each class, in place, and raise the cuts to the worst of them."""
        if self.k is None:
            return
        columns = self._columns()
        key = columns[0]
        worst, over = loops.worst_kept(key, self.k, self.num_classes)
        if not len(over):  # also the log of a state that came from another worker, which is read-only
            return
        self._size = 0
        better = np.zeros(self.num_classes, np.int64)
        at_the_cut: list[list[npt.NDArray[Any]]] = []
        for block in _blocks(len(key)):
            keep, equal = loops.part(key[block], worst, better)
            at_the_cut.append([column[block].take(equal, axis=0) for column in columns])
            self._append([column[block].take(keep, axis=0) for column in columns])
        # More rows may equal a K-th score than there is room for: of them the smallest hashes stay.
        last = [np.concatenate(column) for column in zip(*at_the_cut, strict=True)]
        ranked = best_first(last[0], last[1])
        classes = class_of(last[0].take(ranked))
        count = np.bincount(classes, minlength=self.num_classes)
        place = np.arange(len(classes)) - (np.cumsum(count) - count - better).take(classes)
        self._append([column.take(ranked[place < self.k.take(classes)], axis=0) for column in last])
        self._cut[over] = order_in(worst[over])
        lowest = place == self.k.take(classes) - 1
        self._tie_cut[classes[lowest]] = last[1].take(ranked[lowest])


def log_rows(k: Counts) -> int:
    """Rows that the log of a top-K holds at most, K = `k` (C,)."""
    kept = int(k.sum())
    return kept + max(kept // 2, SLACK_ROWS)


def best_first(key: Key, tie: Ties) -> Index:
    """Indices that sort rows by (key, tie)."""
    if key.dtype != np.uint32:
        return np.lexsort((tie, key))
    # Sorting 64-bit integers is ten times faster than lexsort; the half of the hash that has no room decides only where
    # the other half is equal.
    most = (key.astype(np.uint64) << np.uint64(32)) | (tie >> np.uint64(32))
    ends = np.cumsum(np.bincount(class_of(key)))
    if len(key) < 256 * len(ends):
        ranked = np.argsort(most)
        most = most.take(ranked)
    else:  # by class with a radix sort, which is linear, then each class in the processor's cache
        ranked = np.argsort((key >> 16).astype(np.uint16), kind="stable")
        most = most.take(ranked)
        for start, end in pairwise([0, *ends.tolist()]):
            order = np.argsort(most[start:end])
            ranked[start:end] = ranked[start:end].take(order)
            most[start:end] = most[start:end].take(order)
    same = np.flatnonzero(most[1:] == most[:-1])
    if len(same):
        runs = np.union1d(same, same + 1)
        ranked[runs] = ranked[runs][np.lexsort((tie[ranked[runs]], most[runs]))]
    return ranked


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS))


def _grown(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    larger = np.empty((length, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
