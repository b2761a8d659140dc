"""The two passes of a selection too large for memory, on Ray: the shares of the predictions, then a few classes at a time, are tasks."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from engine.ground.fanout import FanOut
from engine.ground.progress import Progress
from engine.ground.steps import Output, Part, read_part
from engine.select import part_groups
from engine.select.addresses import Addresses
from engine.select.part_groups import COUNTED, SIFTED, Passes
from engine.select.report import SelectReport
from engine.select.route import pieces
from engine.select.select import Selector

T = TypeVar("T")
U = TypeVar("U")


def two_passes(
    fan_out: FanOut, predictions: Output, parts: Sequence[Part], empty: Selector, left_out: Addresses
) -> tuple[list[Part], SelectReport]:
    """The parts and the report of a selection: the same as from the state of one pass."""
    step, given = fan_out.step, part_groups.portioned(parts)
    passes = Passes(step, predictions, empty, len(given))
    units = list(enumerate(given))
    done = step.sidecar_units(COUNTED)
    list(_each(fan_out, "shares counted", part_groups.count_share, units, done, passes, left_out))
    counted, quota, kept = part_groups.counted_shares(passes)
    done = step.sidecar_units(SIFTED)
    list(
        _each(fan_out, "shares sifted", part_groups.filter_share, units, done, passes, left_out, counted.lowest(quota))
    )
    ranked = step.found_parts()
    ranges = list(enumerate(pieces(kept, part_groups.PART_ROWS)))
    made = [
        *ranked.values(),
        *_each(fan_out, "parts ranked", part_groups.rank_classes, ranges, set(ranked), passes, quota),
    ]
    summed = (read_part(step, step.fs, part, ["class", "score", "count"]) for part in made)
    return made, empty.report(summed, counted.available, counted.images)


def _each(
    fan_out: FanOut,
    what: str,
    function: Callable[..., T],
    units: Sequence[tuple[int, U]],
    done: set[int],
    *shared: object,
) -> Iterator[T]:
    """The results of the numbered units that are not done."""
    progress = Progress(fan_out.title, len(units), what, done=len(done))
    for result in fan_out.map(function, (one for one in units if one[0] not in done), *shared):
        progress.add(1)
        yield result
