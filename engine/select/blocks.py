"""The inner loops of the top-K in numpy; `kernel` holds the same three compiled.

Rows are handled in blocks that stay in the processor's cache, by `take` with native indices: several times faster than
boolean masks, and temporaries stay small.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.select.scores import ScoreOrder, order_of, tie_hash

Key = npt.NDArray[Any]
"""Class in the upper bits, then 16 bits that fall as the score rises: uint32, or uint64 beyond 65,536 classes."""
Ties = npt.NDArray[np.uint64]
Index = npt.NDArray[np.intp]
Counts = npt.NDArray[np.int64]


def class_of(key: Key) -> Index:
    """The class in each key."""
    return (key >> 16).astype(np.intp)


def order_in(key: Key) -> ScoreOrder:
    """The score in each key, as order."""
    return ~key.astype(np.uint16)


class Rows(NamedTuple):
    """Candidates, (N,) each."""

    classes: npt.NDArray[np.unsignedinteger]
    scores: npt.NDArray[np.float16]
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]


class RunningCuts(NamedTuple):
    """Of each class, (C,): a row passes with a score above `cut`, or equal to it and a hash below `tie_cut`; it counts as available above `floor`."""

    floor: ScoreOrder
    cut: ScoreOrder
    tie_cut: Ties


def scan(rows: Rows, cuts: RunningCuts, available: Counts) -> tuple[Index, ScoreOrder, Ties, Index]:
    """Class, order, tie and place of each of N rows that beats its class's cut; `available` (C,) counts those above the floor."""
    classes, scores, shard, row = rows
    floor, cut, tie_cut = cuts
    index = classes.astype(np.intp)
    order = order_of(scores)
    above = order > floor.take(index)
    available += np.bincount(index if above.all() else index[above], minlength=len(available))
    place = np.flatnonzero((order >= cut.take(index)) & above)
    tie = tie_hash(shard.take(place), row.take(place))
    index, order = index.take(place), order.take(place)
    keep = np.flatnonzero((order > cut.take(index)) | (tie < tie_cut.take(index)))
    return index.take(keep), order.take(keep), tie.take(keep), place.take(keep)


def worst_kept(key: Key, k: Counts, num_classes: int) -> tuple[Key, Index]:
    """Key of the K-th best row of each class, `k` (C,): its largest possible key where it has fewer, its smallest where
    none is wanted. And the classes that have more."""
    ordered = np.sort(key)
    worst = (np.arange(num_classes, dtype=key.dtype) << 16) | 0xFFFF
    ends = np.searchsorted(ordered, worst, side="right")
    begins = np.concatenate([[0], ends[:-1]])
    over = np.flatnonzero(ends - begins > k)
    wanted = over[k[over] > 0]
    worst[over] = over.astype(key.dtype) << 16
    worst[wanted] = ordered[begins[wanted] + k[wanted] - 1]
    return worst, over


def part(key: Key, worst: Key, better: Counts) -> tuple[Index, Index]:
    """Places of the rows better than the worst kept of their class, counted in `better` (C,), and of those equal to it."""
    classes = class_of(key)
    last = worst.take(classes)
    keep = np.flatnonzero(key < last)
    better += np.bincount(classes.take(keep), minlength=len(better))
    return keep, np.flatnonzero(key == last)
