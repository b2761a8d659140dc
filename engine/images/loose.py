"""Images in separate files or in tars, grouped into shards of similar size in bytes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.tables import schema

ITEMS = pa.schema([("key", pa.string()), ("path", pa.string()), ("bytes", pa.int64()), ("label", pa.string())])
"""Loose images, before they have addresses."""


def shard_bounds(sizes: np.ndarray, rows_per_shard: int, shard_bytes: int) -> np.ndarray:
    """Bounds of the shards, int64 (shards + 1,): consecutive rows of at most `shard_bytes` bytes (but at least one row) and
    at most `rows_per_shard` rows."""
    ends = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = bounds[-1]
        budget = shard_bytes + (ends[start - 1] if start else 0)
        fits = int(np.searchsorted(ends, budget, "right"))
        bounds.append(min(max(fits, start + 1), start + rows_per_shard))
    return np.array(bounds, np.int64)


def shards(
    items: list[pa.Table], containers: list[str], rows_per_shard: int, shard_bytes: int
) -> tuple[pa.Table, pa.Table]:
    """The manifests (schema.SHARDS, schema.FILES) of tables of ITEMS; no shard spans two tables.

    `containers`: the tar of each table, empty for separate files. An unknown size counts as 0 bytes.
    """
    rows: list[tuple[int, str, int, int, int]] = []
    numbers: list[np.ndarray] = []
    inside: list[np.ndarray] = []
    for table, container in zip(items, containers, strict=True):
        sizes = pc.fill_null(table["bytes"], 0).to_numpy()
        bounds = shard_bounds(sizes, rows_per_shard, shard_bytes)
        totals = np.concatenate([[0], np.cumsum(sizes)])[bounds]
        for start, end, size in zip(bounds[:-1].tolist(), bounds[1:].tolist(), np.diff(totals).tolist(), strict=True):
            numbers.append(np.full(end - start, len(rows), np.int32))
            inside.append(np.arange(end - start, dtype=np.int32))
            rows.append((len(rows), container, start if container else 0, end - start, size))
    listed = pa.table(
        [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema.SHARDS)], schema=schema.SHARDS
    )
    every = pa.concat_tables(items)
    address = [pa.array(np.concatenate(part) if part else np.empty(0, np.int32)) for part in (numbers, inside)]
    return listed, pa.table([*address, *(every[name] for name in ITEMS.names)], schema=schema.FILES)


def find_repeated(keys: pa.ChunkedArray, limit: int = 10) -> list[str]:
    """Up to `limit` keys that occur more than once."""
    if pc.count_distinct(keys).as_py() == len(keys):
        return []
    counts = pa.table({"key": keys}).group_by("key").aggregate([([], "count_all")])
    return counts.filter(pc.greater(counts["count_all"], 1))["key"].slice(0, limit).to_pylist()
