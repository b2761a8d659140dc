"""Near duplicates on Ray: perceptual hashes of a collection, computed once and kept, and what of a pool is near what.

They do not depend on a model, so every generation and every selection shares them. A shard's hashes are a part: a killed step goes on.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from engine.dedup.hash_pairs import Pairs, bucket_of, connected_groups, masks, near_pairs, repeated
from engine.dedup.hash_step import hash_step
from engine.dedup.perceptual import Hashes, hashes, thumbnail
from engine.ground.fanout import FanOut
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, read_part, read_tables
from engine.images.collection import Collection
from engine.images.errors import RejectedImageError
from engine.images.manifest import Manifest

REVISION = 1
PERCEIVED = pa.schema([("row", pa.int32()), ("hash", pa.uint64())])
NEAR_DUPLICATES = pa.schema([("shard", pa.int32()), ("row", pa.int32()), ("group", pa.int64())])
"""An image of the pool that has a near one: its group, or -1 for one that is near a labelled or evaluation image."""
BATCH = 256
ROWS_AT_ONCE = 1 << 24
"""Hashes that one task holds at most, about: 0.5 GB with what sorting takes."""


@dataclass(frozen=True)
class HashTable:
    """One share of the hashes, sorted by the bits of `mask`. `most`: largest distance of a pair; 0 for hashes that occur more than once."""

    mask: int
    most: int
    share: int
    shares: int


def find_near_duplicates(run: Run, label: str, pool: Collection, known: Mapping[str, Collection], most: int) -> Output:
    """Images of the pool within `most` bits of another or of an image of `known` (LIKE): part 0 the groups, part 1 those near `known`.

    Summary: {groups, grouped, known: images near each collection}. A group is what is connected by near pairs.
    """
    seen = hash_step(run, pool, "perceive", REVISION, hash_shard)
    others = {name: hash_step(run, collection, "perceive", REVISION, hash_shard) for name, collection in known.items()}
    inputs = {"pool": seen.digest, **{f"known {name}": output.digest for name, output in others.items()}}

    def work(step: Step) -> Output:
        started = time.time()
        parts = seen.parts(step.fs)
        outside = {name: np.unique(np.concatenate(list(_hashes(other, step)))) for name, other in others.items()}
        known_hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *outside.values()]))
        near = _pairs(FanOut(run, label, step), run.store, seen, known_hashes, most)
        foreign = np.isin(near, known_hashes)
        values, group = connected_groups(near[~foreign.any(axis=1)])
        touching = np.union1d(
            near[foreign[:, 1], 0], near[foreign[:, 0], 1]
        )  # also a pool hash that equals a known one
        grouped, close = ([NEAR_DUPLICATES.empty_table()] for _ in range(2))
        near_known = dict.fromkeys(outside, 0)
        for part in parts:
            table = read_part(seen, step.fs, part)
            row, mine = table["row"].to_numpy(), table["hash"].to_numpy()
            at = np.isin(mine, touching)
            close.append(_like(part.unit, row[at], np.full(at.sum(), -1)))
            for name, theirs in outside.items():
                near_known[name] += int(np.isin(mine[at], _neighbours(near, theirs)).sum())
            at = np.isin(mine, values) & ~at
            grouped.append(_like(part.unit, row[at], group[np.searchsorted(values, mine[at])]))
        made = [step.put_part(unit, pa.concat_tables(one)) for unit, one in enumerate((grouped, close))]
        count = len(np.unique(pa.concat_tables(grouped)["group"].to_numpy()))
        summary = {"groups": count, "grouped": made[0].rows, "near known": made[1].rows, "known": near_known}
        log_event(
            label, f"{made[0].rows} images in {count} groups of near duplicates, {made[1].rows} near a known image"
        )
        return step.commit(made, summary, started)

    return run.find_or_run_step(label, StepRecord("likeness", REVISION, {"distance": most}, inputs), work)


def _like(shard: int, row: np.ndarray, group: np.ndarray) -> pa.Table:
    return pa.table([np.full(len(row), shard, np.int32), row, group.astype(np.int64)], schema=NEAR_DUPLICATES)


def _neighbours(near: Pairs, theirs: Hashes) -> Hashes:
    """Hashes that are in a pair with one of `theirs`."""
    other = np.isin(near, theirs)
    return np.union1d(near[other[:, 1], 0], near[other[:, 0], 1])


def _hashes(output: Output, step: Step) -> Iterator[Hashes]:
    yield np.empty(0, np.uint64)
    for _, table in read_tables(output, step.fs, ["hash"]):
        yield table["hash"].to_numpy()


def _pairs(fan_out: FanOut, store: Store, seen: Output, known: Hashes, most: int) -> Pairs:
    """All near pairs of the pool and of `known` together, distinct."""
    parts = seen.parts(store.fs)
    rows = sum(part.rows for part in parts) + len(known)
    shares = -(-rows // ROWS_AT_ONCE)
    sorts = [(2**64 - 1, 0), *((mask, most) for mask in masks(rows, most) if most)]
    tables = (HashTable(mask, bits, share, shares) for mask, bits in sorts for share in range(shares))
    found = np.empty((0, 2), np.uint64)
    for pairs in fan_out.map(pairs_in, tables, store, seen, parts, known):
        found = np.unique(np.concatenate([found, pairs]), axis=0)
    return found


def pairs_in(table: HashTable, store: Store, seen: Output, parts: list[Part], known: Hashes) -> Pairs:
    """The near pairs that one table finds among the pool's hashes and `known`."""
    held = [known[bucket_of(known, table.mask, table.shares) == table.share]]
    for part in parts:
        mine = read_part(seen, store.fs, part, ["hash"])["hash"].to_numpy()
        held.append(mine[bucket_of(mine, table.mask, table.shares) == table.share])
    together = np.concatenate(held)
    return near_pairs(np.unique(together), table.mask, table.most) if table.most else repeated(together)


def hash_shard(manifest: Manifest, shard: int) -> pa.Table:
    """Rows and hashes (PERCEIVED) of the images of a shard that can be decoded."""
    tables = [PERCEIVED.empty_table()]
    for batch in manifest.read(shard, batch_rows=BATCH):
        small, rows = [], []
        for row, image in zip(batch["row"].to_pylist(), batch["image"], strict=True):
            try:
                small.append(thumbnail(image.as_buffer()))
                rows.append(row)
            except RejectedImageError:
                continue  # labelling puts it into the quarantine, with its reason
        if rows:
            tables.append(pa.table([np.array(rows, np.int32), hashes(torch.stack(small))], schema=PERCEIVED))
    return pa.concat_tables(tables)
