"""The two passes of a selection too large for memory, on Ray: the shares of the predictions, then a few classes at a time, are tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import ray

from engine.ground.progress import Progress
from engine.ground.resources import ANYWHERE
from engine.ground.steps import Output, Part, Step, read_part
from engine.select import part_groups
from engine.select.addresses import Addresses
from engine.select.part_groups import COUNTED, SIFTED, portioned
from engine.select.report import SelectReport
from engine.select.route import pieces
from engine.select.select import Selector

_count = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)(part_groups.count_group)
_sift = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)(part_groups.filter_group)
_rank = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)(part_groups.rank_classes)


def two_passes(
    label: str, step: Step, predictions: Output, parts: Sequence[Part], empty: Selector, left_out: Addresses
) -> tuple[list[Part], SelectReport]:
    """The parts and the report of a selection: the same as from the state of one pass."""
    work = (step, predictions, empty, ray.put(left_out))
    given = portioned(parts)
    _each(
        label, "shares counted", given, step.sidecar_units(COUNTED), lambda unit, one: _count.remote(*work, unit, one)
    )
    counted, quota, kept = part_groups.counted_shares(step, empty, len(given))
    lowest = ray.put(counted.lowest(quota))
    _each(
        label,
        "shares sifted",
        given,
        step.sidecar_units(SIFTED),
        lambda unit, one: _sift.remote(*work, unit, one, lowest),
    )
    done = step.found_parts()
    ranges = pieces(kept, part_groups.PART_ROWS)
    rank = (step, empty, quota, len(given))
    made = _each(label, "parts ranked", ranges, set(done), lambda unit, one: _rank.remote(*rank, unit, one))
    made = [*done.values(), *made]
    summed = (read_part(step, step.fs, part, ["class", "score", "count"]) for part in made)
    return made, empty.report(summed, counted.available, counted.images)


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
