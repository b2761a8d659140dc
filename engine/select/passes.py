"""The two passes of a selection too large for memory, on Ray: what a share of the predictions counts and sifts goes to the disk.

    select-…/counted/00000000.parquet   candidates by class and score, of a share
    select-…/sifted/00000000.parquet    those of them that can be among the K best
    select-…/parts/…                    the pseudo-labels of a few classes each

Shares are the same for any cluster and files appear whole, so a selection that was killed goes on with the shares and classes it lacks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from engine.progress import Progress
from engine.select.blocks import Counts
from engine.select.left_out import Addresses, without
from engine.select.quota import shares, truncated
from engine.select.report import SelectReport
from engine.select.route import pieces
from engine.select.scores import Order
from engine.select.select import Selector
from engine.select.two_pass import Coarse, ranked, sifted
from engine.steps import Output, Part, Step, read_part

SHARE_ROWS = 1 << 23
"""Predictions of a share, about."""
PART_ROWS = 4_000_000
"""Rows of a part, unless one class has more, so that a large selection is read piece by piece."""
COUNTED, SIFTED = "counted", "sifted"


def put_pieces(step: Step, table: pa.Table, num_classes: int) -> list[Part]:
    """Put pseudo-labels sorted by class, a few classes a part."""
    kept = np.bincount(table["class"].to_numpy(), minlength=num_classes)
    ends = np.concatenate([[0], np.cumsum(kept)])
    return [
        step.put_part(unit, table.slice(ends[first], ends[end] - ends[first]))
        for unit, (first, end) in enumerate(pieces(kept, PART_ROWS))
    ]


def two_passes(
    label: str, step: Step, predictions: Output, parts: Sequence[Part], empty: Selector, left_out: Addresses
) -> tuple[list[Part], SelectReport]:
    """The parts and the report of a selection: the same as from the state of one pass."""
    work = (step, predictions, empty, ray.put(left_out))
    portions = portioned(parts)
    _each(label, "shares counted", portions, step.beside(COUNTED), lambda unit, one: _count.remote(*work, unit, one))
    counted = Coarse(empty.rule.cuts)
    for unit in range(len(portions)):
        counted.merge(step.read_beside(COUNTED, unit))
    quota = empty.rule.quota
    kept = counted.available if quota is None else np.minimum(counted.available, quota)
    if empty.settings.balance == "truncate":
        quota = kept = truncated(kept, shares(empty.settings, empty.classes))
    lowest = ray.put(counted.lowest(quota))
    _each(
        label, "shares sifted", portions, step.beside(SIFTED), lambda unit, one: _sift.remote(*work, unit, one, lowest)
    )
    done = step.found_parts()
    made = _each(
        label,
        "parts ranked",
        pieces(kept, PART_ROWS),
        set(done),
        lambda unit, one: _rank.remote(step, empty, quota, len(portions), unit, one),
    )
    made = [*done.values(), *made]
    summed = (read_part(step, step.fs, part, ["class", "score", "count"]) for part in made)
    return made, empty.report(summed, counted.available, counted.images)


def forget(step: Step) -> None:
    """Remove what the passes wrote for themselves."""
    for folder in (COUNTED, SIFTED):
        step.drop_beside(folder)


def portioned(parts: Sequence[Part]) -> list[list[Part]]:
    """Consecutive parts together, about SHARE_ROWS in each share."""
    place = np.cumsum([0, *(part.rows for part in parts)])[:-1] // SHARE_ROWS
    return [[parts[int(i)] for i in np.flatnonzero(place == share)] for share in np.unique(place)]


def _each(
    label: str, what: str, units: Sequence[Any], done: set[int], start: Callable[[int, Any], ray.ObjectRef]
) -> list[Any]:
    """The results of the units that are not done."""
    waiting = [start(unit, one) for unit, one in enumerate(units) if unit not in done]
    progress = Progress(label, len(units), what, done=len(units) - len(waiting))
    results = []
    while waiting:
        ready, waiting = ray.wait(waiting)
        results += ray.get(ready)
        progress.add(len(ready))
    return results


@ray.remote(num_cpus=1)
def _count(step: Step, predictions: Output, empty: Selector, left_out: Addresses, unit: int, parts: list[Part]) -> None:
    counted = Coarse(empty.rule.cuts)
    for part in parts:
        table = without(read_part(predictions, step.fs, part), left_out)
        counted.images += table.num_rows
        for classes, score, *_ in empty.candidates(table):
            counted.update(classes, score)
    step.put_beside(COUNTED, unit, counted.table())


@ray.remote(num_cpus=1)
def _sift(
    step: Step, predictions: Output, empty: Selector, left_out: Addresses, unit: int, parts: list[Part], lowest: Order
) -> None:
    tables = (without(read_part(predictions, step.fs, part), left_out) for part in parts)
    candidates = (one for table in tables for one in empty.candidates(table))
    step.put_beside(SIFTED, unit, sifted(candidates, empty.rule.cuts, lowest))


@ray.remote(num_cpus=1)
def _rank(
    step: Step, empty: Selector, quota: Counts | None, num_shares: int, unit: int, classes: tuple[int, int]
) -> Part:
    first, end = classes
    mine = (pc.field("class") >= first) & (pc.field("class") < end)
    tables = (step.read_beside(SIFTED, share, mine) for share in range(num_shares))
    return step.put_part(unit, empty.table(ranked(tables, empty, quota, first, end)))
