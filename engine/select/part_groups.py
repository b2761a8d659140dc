"""What one worker does in a selection over the disk: count a share of the predictions, sift it, rank a few classes. No Ray.

    select-…/counted/00000000.parquet   candidates by class and score, of a share
    select-…/sifted/00000000.parquet    those of them that can be among the K best
    select-…/parts/…                    the pseudo-labels of a few classes each

Shares are the same for any cluster and files appear whole, so a selection that was killed goes on with the shares and classes it lacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.ground.steps import Output, Part, Step, read_part
from engine.select.addresses import Addresses, drop_addresses
from engine.select.blocks import Counts
from engine.select.quota import truncated, weights
from engine.select.route import pieces
from engine.select.scores import ScoreOrder
from engine.select.select import Selector
from engine.select.two_pass import ScoreBins, filter_candidates, rank_candidates

SHARE_ROWS = 1 << 23
"""Predictions of a share, about."""
PART_ROWS = 4_000_000
"""Rows of a part, unless one class has more, so that a large selection is read piece by piece."""
COUNTED, SIFTED = "counted", "sifted"


def portioned(parts: Sequence[Part]) -> list[list[Part]]:
    """Consecutive parts together, about SHARE_ROWS in each share."""
    place = np.cumsum([0, *(part.rows for part in parts)])[:-1] // SHARE_ROWS
    return [[parts[int(i)] for i in np.flatnonzero(place == share)] for share in np.unique(place)]


@dataclass(frozen=True)
class Passes:
    """A selection over the disk: `step` keeps what the passes wrote; `empty` is the selection before its first row."""

    step: Step
    predictions: Output
    empty: Selector
    num_shares: int


def count_share(share: tuple[int, Sequence[Part]], passes: Passes, left_out: Addresses) -> None:
    """The first pass over a numbered share: its candidates by class and score."""
    unit, parts = share
    counted = ScoreBins(passes.empty.rule.cuts)
    for part in parts:
        table = drop_addresses(read_part(passes.predictions, passes.step.fs, part), left_out)
        counted.images += table.num_rows
        for classes, score, *_ in passes.empty.candidates(table):
            counted.update(classes, score)
    passes.step.put_sidecar(COUNTED, unit, counted.table())


def counted_shares(passes: Passes) -> tuple[ScoreBins, Counts | None, Counts]:
    """What all shares counted, K of each class (C,) with balance=truncate obeyed, and the rows that are kept of each."""
    empty = passes.empty
    counted = ScoreBins(empty.rule.cuts)
    for unit in range(passes.num_shares):
        counted.merge(passes.step.read_sidecar(COUNTED, unit))
    quota = empty.rule.quota
    kept = counted.available if quota is None else np.minimum(counted.available, quota)
    if empty.settings.balance == "truncate":
        quota = kept = truncated(kept, weights(empty.settings, empty.classes))
    return counted, quota, kept


def filter_share(share: tuple[int, Sequence[Part]], passes: Passes, left_out: Addresses, lowest: ScoreOrder) -> None:
    """The second pass over a numbered share: its candidates that can be among the K best."""
    unit, parts = share
    empty = passes.empty
    tables = (drop_addresses(read_part(passes.predictions, passes.step.fs, part), left_out) for part in parts)
    candidates = (one for table in tables for one in empty.candidates(table))
    passes.step.put_sidecar(SIFTED, unit, filter_candidates(candidates, empty.rule.cuts, lowest))


def rank_classes(numbered: tuple[int, tuple[int, int]], passes: Passes, quota: Counts | None) -> Part:
    """The part, with its number, of the pseudo-labels of the classes [first, end)."""
    unit, (first, end) = numbered
    mine = (pc.field("class") >= first) & (pc.field("class") < end)
    tables = (passes.step.read_sidecar(SIFTED, share, mine) for share in range(passes.num_shares))
    return passes.step.put_part(unit, passes.empty.table(rank_candidates(tables, passes.empty, quota, first, end)))


def put_pieces(step: Step, table: pa.Table, num_classes: int, part_rows: int) -> list[Part]:
    """Put pseudo-labels sorted by class, a few classes a part, or one with more than `part_rows` rows."""
    kept = np.bincount(table["class"].to_numpy(), minlength=num_classes)
    ends = np.concatenate([[0], np.cumsum(kept)])
    return [
        step.put_part(unit, table.slice(ends[first], ends[end] - ends[first]))
        for unit, (first, end) in enumerate(pieces(kept, part_rows))
    ]


def forget(step: Step) -> None:
    """Remove what the passes wrote for themselves."""
    for folder in (COUNTED, SIFTED):
        step.drop_sidecars(folder)
