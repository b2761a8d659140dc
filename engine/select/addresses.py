"""Images that a selection leaves out, as addresses in one sorted array."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.select.scores import Half, order_of, tie_hash

Addresses = npt.NDArray[np.int64]
"""Shard in the upper 32 bits, row in the lower."""


def addresses(table: pa.Table) -> Addresses:
    """(shard, row) of each row as one integer (N,)."""
    return table["shard"].to_numpy().astype(np.int64) << 32 | table["row"].to_numpy()


def table_of(found: Addresses) -> pa.Table:
    """Addresses as columns `shard` and `row`."""
    return pa.table({"shard": (found >> 32).astype(np.int32), "row": (found & 0xFFFFFFFF).astype(np.int32)})


def isin_sorted(wanted: Addresses, known: Addresses) -> npt.NDArray[np.bool_]:
    """Which of `wanted` (N,) stand in `known`, sorted."""
    if not known.size:
        return np.zeros(wanted.size, np.bool_)
    return known[np.minimum(np.searchsorted(known, wanted), known.size - 1)] == wanted


def drop_addresses(table: pa.Table, left_out: Addresses) -> pa.Table:
    """The rows of a table with `shard` and `row` that are not left out, `left_out` sorted."""
    if not left_out.size:
        return table
    out = isin_sorted(addresses(table), left_out)
    return table.filter(pa.array(~out)) if out.any() else table


class BestOfGroups:
    """The best-scored image of each group of near duplicates, by score, then by the hash of the address. Mergeable and picklable."""

    def __init__(self, members: Addresses, group: npt.NDArray[np.int64]) -> None:
        """`members` (M,): sorted addresses of the images that have a near duplicate; `group` (M,) of each."""
        self._members, self._group = members, group
        self._best = np.empty((4, 0), np.uint64)  # group, order of the score from the top, tie, address

    def update(self, table: pa.Table, score: Half) -> None:
        """Take in a predictions table and what its images are ranked by (N,)."""
        at = addresses(table)
        mine = np.flatnonzero(isin_sorted(at, self._members))
        group = self._group[np.searchsorted(self._members, at[mine])]
        shard, row = (table[name].to_numpy()[mine] for name in ("shard", "row"))
        columns = (group, ~order_of(score[mine]), tie_hash(shard, row), at[mine])
        self._add(np.stack([column.astype(np.uint64) for column in columns]))

    def merge(self, other: "BestOfGroups") -> None:
        """Take in what `other` has seen."""
        self._add(other._best)

    def beaten(self) -> Addresses:
        """The members that are not the best of their group, sorted."""
        return np.setdiff1d(self._members, self._best[3].astype(np.int64))

    def _add(self, rows: npt.NDArray[np.uint64]) -> None:
        rows = np.concatenate([self._best, rows], axis=1)
        rows = rows[:, np.lexsort((rows[2], rows[1], rows[0]))]
        self._best = rows[:, np.flatnonzero(np.diff(rows[0], prepend=~rows[0, :1]))]
