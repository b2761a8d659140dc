"""Which way a selection goes: one pass with its state in memory, or two passes over the disk. A decision as a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.select.blocks import Counts
from engine.select.topk import log_rows

TIE_BYTES = 8


@dataclass(frozen=True)
class Route:
    """The way and its reason, with the estimate behind it."""

    name: Literal["streaming", "two passes"]
    state_bytes: int
    """What a worker's running state may grow to."""
    reason: str


def route(
    num_classes: int, quota: Counts | None, candidates: int, payload_bytes: int, limit: int, sticky: bool
) -> Route:
    """The route for `candidates` rows of `payload_bytes` each beside class, score and address. The result is the same either way.

    `quota` (C,): K of each class, None where all that passes is kept. `limit`: bytes that a worker's state may take.
    `sticky`: earlier labels stand beside the new ones.
    """
    rows = candidates if quota is None else min(candidates, log_rows(quota))
    size = rows * ((4 if num_classes <= 1 << 16 else 8) + TIE_BYTES + payload_bytes)
    if size <= limit:
        return Route("streaming", size, f"a state of at most {_mib(size)} fits")
    if sticky:
        return Route("streaming", size, "the earlier labels are held in memory anyway")
    return Route("two passes", size, f"a state of {_mib(size)} is more than cluster.select_state_bytes, {_mib(limit)}")


def pieces(kept: Counts | Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Ranges of classes [first, end) with at most `limit` rows together, or of one class with more; `kept` (C,) rows of each.

    They cover all classes in order; there is at least one.
    """
    starts, rows = [0], 0
    for index, count in enumerate(kept):
        if rows and rows + count > limit:
            starts.append(index)
            rows = 0
        rows += int(count)
    return list(zip(starts, [*starts[1:], len(kept)], strict=True))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
