"""What the parts of an unfinished step tell: one listing gives counts, times and costs; footers of a sample give rows and rejects.

No part is read: a listing of 100,000 names and at most FOOTERS footers is all, whatever the pool's size.
"""

import json
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.ground.steps import PART, STATS, seconds_from_name
from engine.predict.bottleneck import Bottleneck, bottleneck

FOOTERS = 256
SLOWEST = 3


@dataclass(frozen=True)
class PartsListing:
    """Distinct units done, sorted times of writing (seconds since 1970), seconds spent on each unit, names, and what bounds the work."""

    done: int
    times: list[float]
    seconds: dict[int, float]
    names: list[str]
    bottleneck: Bottleneck | None


def listed(fs: pafs.FileSystem, folder: str) -> PartsListing:
    """One listing of a step's parts. A unit that was put twice counts once."""
    names: dict[int, str] = {}
    times: dict[int, float] = {}
    for info in fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True)):
        if match := PART.fullmatch(info.base_name):
            unit = int(match.group(1))
            names[unit] = info.base_name
            times[unit] = min(times.get(unit, float("inf")), info.mtime_ns / 1e9)
    spent: Counter[str] = Counter()
    seconds: dict[int, float] = {}
    for unit, name in names.items():
        cost = seconds_from_name(name)
        seconds[unit] = sum(cost.values())
        for stage, value in cost.items():
            spent[stage] += value  # type: ignore[assignment]
    chosen = [names[unit] for unit in sorted(names)]
    return PartsListing(len(names), sorted(times.values()), seconds, chosen, bottleneck(spent))


def particulars(fs: pafs.FileSystem, folder: str, found: PartsListing) -> tuple[str, ...]:
    """Lines: rejects by reason (of a sample of the parts when there are many), and the slowest shards."""
    step = max(1, -(-len(found.names) // FOOTERS))
    sampled = found.names[::step]
    with ThreadPoolExecutor(16) as pool:
        footers = [one for one in pool.map(lambda name: _footer(fs, f"{folder}/{name}"), sampled) if one is not None]
    reasons: Counter[str] = Counter()
    for _, stats in footers:
        reasons.update(stats.get("reasons", {}))
    rows = sum(count for count, _ in footers)
    share = f" in {len(sampled)} of {len(found.names)} parts looked at ({rows:,} images)" if step > 1 else ""
    lines = [line + share for line in reasons_line(reasons)]
    slow = sorted(found.seconds.items(), key=lambda item: -item[1])[:SLOWEST]
    if slow and slow[0][1] > 0:
        usual = sorted(found.seconds.values())[len(found.seconds) // 2]
        named = ", ".join(f"{unit} ({seconds:.1f} s)" for unit, seconds in slow)
        lines.append(f"slowest shards {named}; half take less than {usual:.1f} s")
    return tuple(lines)


def reasons_line(reasons: Mapping[str, int]) -> tuple[str, ...]:
    """`skipped: truncated 12, empty 3`, most frequent first; nothing when nothing was."""
    if not reasons:
        return ()
    listed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items(), key=lambda item: -item[1]))
    return (f"skipped: {listed}",)


def _footer(fs: pafs.FileSystem, path: str) -> tuple[int, dict[str, dict[str, int]]] | None:
    """Rows and stats of a part, from its footer; None for one that cannot be read, which a resume makes again."""
    try:
        with fs.open_input_file(path) as file:
            metadata = pq.read_metadata(file)
        return metadata.num_rows, json.loads((metadata.metadata or {}).get(STATS, b"{}"))
    except (OSError, pa.ArrowException):
        return None
