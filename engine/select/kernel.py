"""The inner loops of the top-K compiled: the same functions and answers as `blocks`.

Used when numba is installed (extra `numba`); the first call in a process loads or compiles them, about a second.
"""

import numpy as np
from numba import njit, uint64

from engine.select import blocks

__all__ = ["part", "scan", "worst_kept"]


@njit(cache=True, nogil=True)
def _scan(classes, bits, shard, row, floor, cut, tie_cut, available, out_class, out_order, out_tie, out_place):  # type: ignore[no-untyped-def]
    found = 0
    for i in range(len(classes)):
        c = classes[i]
        b = bits[i]
        order = np.uint16(b ^ 0xFFFF) if b & 0x8000 else np.uint16(b | 0x8000)
        if order == 0x7FFF:  # -0
            order = np.uint16(0x8000)
        if order > floor[c]:
            available[c] += 1
            if order >= cut[c]:
                z = (uint64(np.uint32(shard[i])) << uint64(32)) | uint64(np.uint32(row[i]))
                z += uint64(0x9E3779B97F4A7C15)
                z = (z ^ (z >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
                z = (z ^ (z >> uint64(27))) * uint64(0x94D049BB133111EB)
                z ^= z >> uint64(31)
                if order > cut[c] or z < tie_cut[c]:
                    out_class[found] = c
                    out_order[found] = order
                    out_tie[found] = z
                    out_place[found] = i
                    found += 1
    return found


def scan(rows, cuts, available):  # type: ignore[no-untyped-def]
    """See `blocks.scan`."""
    out = tuple(np.empty(len(rows.classes), kind) for kind in (np.intp, np.uint16, np.uint64, np.intp))
    found = _scan(rows.classes, rows.scores.view(np.uint16), rows.shard, rows.row, *cuts, available, *out)
    return tuple(column[:found] for column in out)


@njit(cache=True, nogil=True)
def _worst_kept(key, k, worst, count):  # type: ignore[no-untyped-def]
    """Radix selection: which of 256 bins of scores holds a class's K-th row, then which score of that bin."""
    for each in key:
        count[each >> 16, (each >> 8) & 0xFF] += 1
    over = np.zeros(len(worst), np.bool_)
    bins = np.full(len(worst), -1, np.int64)
    left = k.copy()
    for c in range(len(worst)):
        over[c] = count[c].sum() > k[c]
        if over[c]:
            worst[c] = c << 16
        if over[c] and k[c] > 0:
            bins[c] = 0
            while left[c] > count[c, bins[c]]:
                left[c] -= count[c, bins[c]]
                bins[c] += 1
    count[:] = 0
    for each in key:
        c = each >> 16
        if ((each >> 8) & 0xFF) == bins[c]:
            count[c, each & 0xFF] += 1
    for c in range(len(worst)):
        if bins[c] >= 0:
            last = 0
            while left[c] > count[c, last]:
                left[c] -= count[c, last]
                last += 1
            worst[c] = (c << 16) | (bins[c] << 8) | last
    return over


def worst_kept(key, k, num_classes):  # type: ignore[no-untyped-def]
    """See `blocks.worst_kept`. Counts instead of sorting, unless the classes have more bins together than the log has rows."""
    if num_classes * 256 > len(key):
        return blocks.worst_kept(key, k, num_classes)
    worst = (np.arange(num_classes, dtype=key.dtype) << 16) | 0xFFFF
    over = _worst_kept(key, k, worst, np.zeros((num_classes, 256), np.uint32))
    return worst, np.flatnonzero(over)


@njit(cache=True, nogil=True)
def part(key, worst, better):  # type: ignore[no-untyped-def]
    """See `blocks.part`."""
    keep = np.empty(len(key), np.intp)
    equal = np.empty(len(key), np.intp)
    num_keep = 0
    num_equal = 0
    for i in range(len(key)):
        c = key[i] >> 16
        if key[i] < worst[c]:
            better[c] += 1
            keep[num_keep] = i
            num_keep += 1
        elif key[i] == worst[c]:
            equal[num_equal] = i
            num_equal += 1
    return keep[:num_keep], equal[:num_equal]
