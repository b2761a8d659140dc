"""A table of picks in the order of the pool: a part per range of consecutive shards, so that all that concerns a shard is in one place.

A selection is written class by class. Whatever goes through it image by image (gathering, comparing two selections, looking up the truth) needs the
shards' order, and no process can hold the whole of it: the picks are scattered to ranges of shards and sorted range by range, on workers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.ground.fanout import FanOut
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, StoreError, read_part, read_sidecar, read_tables
from engine.images.collection import Collection

REVISION = 1
RANGE_ROWS = 1 << 20
"""Images of the collection in a range, about: two tables of one collection have the same ranges."""
FEW_ROWS = 1 << 16
"""Picks that are arranged by the driver itself."""
SCATTERED, COUNTS = "scattered", "counts"
SHARD_COUNTS = pa.schema([("shard", pa.int32()), ("rows", pa.int64())])

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardRange:
    """The shards [first, end); `unit` is the part that holds their rows."""

    unit: int
    first: int
    end: int


@dataclass(frozen=True, eq=False)
class Arranged:
    """The rows of a table, sorted by (shard, row, class). Pickles small."""

    output: Output
    store: Store

    def counts(self) -> tuple[Ints, Ints]:
        """Shards (n,) that have rows, ascending, and the number of rows of each. Raises StoreError for counts that were changed."""
        read = (read_sidecar(self.output, self.store.fs, COUNTS, part) for part in self._parts)
        table = pa.concat_tables([SHARD_COUNTS.empty_table(), *read])
        return table["shard"].to_numpy().astype(np.int64), table["rows"].to_numpy()

    def read(self, shards: Ints) -> pa.Table:
        """The rows of some shards (ascending), in order. Raises StoreError for a part that was changed."""
        firsts = [one.start for one in self.ranges]
        wanted = np.unique(np.searchsorted(firsts, shards, side="right") - 1)
        mine = pc.field("shard").isin(pa.array(shards, pa.int32()))
        tables = []
        for part in (self._parts[int(place)] for place in wanted):
            path = f"{self.output.folder}/parts/{part.name}"
            try:
                tables.append(
                    pq.read_table(path, filesystem=self.store.fs, filters=mine, page_checksum_verification=True)
                )
            except OSError as error:
                raise StoreError(
                    f"{path}: cannot be read ({error}). Delete the folder of the step and run again."
                ) from error
        return pa.concat_tables(tables)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows range by range, one table for each."""
        return (table for _, table in read_tables(self.output, self.store.fs, columns))

    @property
    def ranges(self) -> list[range]:
        """The shards of each table."""
        return [range(part.stats["first"], part.stats["end"]) for part in self._parts]

    @cached_property
    def _parts(self) -> list[Part]:
        return self.output.parts(self.store.fs)


def arrange(run: Run, label: str, picks: Output, collection: Collection) -> Arranged:
    """The rows of `picks` (columns `shard`, `row`, …) in the order of `collection`, as the step `label order`. Summary: {rows}."""
    title = f"{label} order"
    ranges = shard_ranges(collection.manifest.rows, RANGE_ROWS)

    def work(step: Step) -> Output:
        started = time.time()
        given = picks.parts(step.fs)
        rows = sum(part.rows for part in given)
        fan_out: Callable[..., Iterator[Part]] = map_here if rows <= FEW_ROWS else FanOut(run, title, step).map
        is_scattered = len(ranges) > 1 and rows > FEW_ROWS
        if is_scattered:
            done = step.sidecar_units(SCATTERED)
            for _ in fan_out(scatter, (part for part in given if part.unit not in done), step, picks):
                pass
        parts = step.found_parts()
        missing = (one for one in ranges if one.unit not in parts)
        for part in fan_out(sort_range, missing, step, picks, given, is_scattered):
            parts[part.unit] = part
        output = step.commit(parts.values(), {"rows": rows}, started)
        step.drop_sidecars(SCATTERED)
        return output

    inputs = {"picks": picks.digest, "images": collection.manifest.digest}
    record = StepRecord("arrange", REVISION, {"range_rows": RANGE_ROWS}, inputs)
    return Arranged(run.find_or_run_step(title, record, work), run.store)


def shard_ranges(rows: npt.NDArray[np.integer], range_rows: int) -> list[ShardRange]:
    """Consecutive shards with about `range_rows` of the collection's images each; `rows` (S,) of each shard. They cover all shards."""
    before = np.cumsum(rows, dtype=np.int64) - rows
    starts = np.flatnonzero(np.diff(before // range_rows, prepend=-1)).tolist()
    return [
        ShardRange(unit, first, end)
        for unit, (first, end) in enumerate(zip(starts, [*starts[1:], len(rows)], strict=True))
    ]


def scatter(part: Part, step: Step, picks: Output) -> None:
    """Put a part's rows aside in the order of the shards, so that each range finds its own without reading the others."""
    table = read_part(picks, step.fs, part)
    step.put_sidecar(SCATTERED, part.unit, in_order(table))


def sort_range(span: ShardRange, step: Step, picks: Output, given: Sequence[Part], is_scattered: bool) -> Part:
    """The part of one range: its rows of every part of `picks`, and how many there are of each shard."""
    mine = (pc.field("shard") >= span.first) & (pc.field("shard") < span.end)
    tables = (
        step.read_sidecar(SCATTERED, part.unit, mine) if is_scattered else read_part(picks, step.fs, part).filter(mine)
        for part in given
    )
    table = in_order(pa.concat_tables(tables))
    shards, rows = np.unique(table["shard"].to_numpy(), return_counts=True)
    counts = pa.table([pa.array(shards, pa.int32()), rows], schema=SHARD_COUNTS)
    stats = {"first": span.first, "end": span.end, COUNTS: step.put_sidecar(COUNTS, span.unit, counts)}
    return step.put_part(span.unit, table, stats, row_group_size=1 << 16, write_page_checksum=True)


def in_order(table: pa.Table) -> pa.Table:
    """The rows by shard, row and, where there are several of an image, class."""
    keys = [table[name].to_numpy() for name in ("class", "row", "shard") if name in table.column_names]
    return table.take(pa.array(np.lexsort(keys)))


def map_here(function: Callable[..., Part], units: Iterator[object], *shared: object) -> Iterator[Part]:
    """`FanOut.map` in this process."""
    return (function(unit, *shared) for unit in units)
