"""Which perceptual hashes are near one another, exactly, without comparing all with all.

Cut 64 bits into m blocks: hashes that differ in at most d bits agree on some m - d blocks. So for each choice of m - d blocks the
hashes are sorted by those bits, and only those that agree there are compared. Nothing within d is missed.
"""

from itertools import combinations, pairwise
from math import comb, log2

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from engine.dedup.perceptual import BITS, Hashes, distance

SORT_NS, COMPARE_NS = 4.0, 8.0
"""Cost of a row in a sort, times log2 of the rows, and of a comparison: measured, they only choose the number of blocks."""
MIXER = np.uint64(0x9E3779B97F4A7C15)

Pairs = npt.NDArray[np.uint64]
"""(N, 2), the smaller hash first; a hash that several images have is a pair with itself."""


def masks(rows: int, most: int) -> list[int]:
    """The bits that each table sorts by, for finding pairs within `most` bits among `rows` hashes at least cost."""
    if most == 0:
        return [2**BITS - 1]
    costs = {}
    for blocks in range(most + 1, min(most + 8, BITS)):
        agreeing = BITS * (blocks - most) / blocks
        each = SORT_NS * log2(max(rows, 2)) + COMPARE_NS * rows / 2**agreeing
        costs[blocks] = comb(blocks, most) * each
    blocks = min(costs, key=costs.__getitem__)
    ends = [round(BITS * i / blocks) for i in range(blocks + 1)]
    parts = [2**end - 2**start for start, end in pairwise(ends)]
    return [sum(kept) for kept in combinations(parts, blocks - most)]


def bucket_of(hashes: Hashes, mask: int, shares: int) -> npt.NDArray[np.int64]:
    """Which of `shares` a hash belongs to in the table of `mask`: those that agree on its bits are together."""
    mixed = (hashes & np.uint64(mask)) * MIXER
    return ((mixed >> np.uint64(32)) % np.uint64(shares)).astype(np.int64)


def near_pairs(hashes: Hashes, mask: int, most: int) -> Pairs:
    """Pairs of distinct hashes (N,), in any order, that agree on `mask` and differ in at most `most` bits."""
    kept = hashes & np.uint64(mask)
    order = np.argsort(kept, kind="stable")
    ordered, kept = hashes[order], kept[order]
    found, first, offset = [np.empty((0, 2), np.uint64)], np.arange(len(hashes)), 1
    while len(first := first[first + offset < len(hashes)]):
        first = first[kept[first] == kept[first + offset]]
        near = first[distance(ordered[first], ordered[first + offset]) <= most]
        found.append(np.sort(np.stack([ordered[near], ordered[near + offset]], axis=1), axis=1))
        offset += 1
    return np.concatenate(found)


def repeated(hashes: Hashes) -> Pairs:
    """Hashes that come more than once, as pairs with themselves."""
    values, counts = np.unique(hashes, return_counts=True)
    return np.repeat(values[counts > 1][:, None], 2, axis=1)


def connected_groups(pairs: Pairs) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Sorted hashes (M,) that have a near one, and the group of each: what is connected by pairs is one group."""
    values, place = np.unique(pairs, return_inverse=True)
    first, second = place.reshape(-1, 2).T
    links = coo_matrix((np.ones(len(first), np.bool_), (first, second)), shape=(len(values), len(values)))
    return values, connected_components(links, directed=False)[1].astype(np.int64)
