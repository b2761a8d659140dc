"""Near duplicates on Ray: perceptual hashes of a collection, computed once and kept, and what of a pool is near what.

They do not depend on a model, so every generation and every selection shares them. A shard's hashes are a part: a killed step goes on.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import ray
import torch

from engine.dedup.hash_pairs import Pairs, bucket_of, connected_groups, masks, near_pairs, repeated
from engine.dedup.perceptual import Hashes, hashes, thumbnail
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.resources import ANYWHERE
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, read_part, read_tables
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


def hash_perceptually(run: Run, collection: Collection) -> Output:
    """Perceptual hashes of every image that can be decoded, one part a shard (PERCEIVED)."""

    def work(step: Step) -> Output:
        started = time.time()
        done = step.found_parts()
        shards = [shard for shard in range(collection.manifest.num_shards) if shard not in done]
        tasks = max(1, min(len(shards), 16 * int(ray.cluster_resources().get("CPU", 1))))
        made = [_perceive.remote(step, collection.manifest, one.tolist()) for one in np.array_split(shards, tasks)]
        parts = [*done.values(), *chain.from_iterable(ray.get(made))]
        return step.commit(parts, {"images": sum(part.rows for part in parts)}, started)

    return run.find_or_run_step(
        f"perceive {collection.name}", StepRecord("perceive", REVISION, {}, {"images": collection.digest}), work
    )


def find_near_duplicates(run: Run, label: str, pool: Collection, known: Mapping[str, Collection], most: int) -> Output:
    """Images of the pool within `most` bits of another or of an image of `known` (LIKE): part 0 the groups, part 1 those near `known`.

    Summary: {groups, grouped, known: images near each collection}. A group is what is connected by near pairs.
    """
    seen = hash_perceptually(run, pool)
    others = {name: hash_perceptually(run, collection) for name, collection in known.items()}
    inputs = {"pool": seen.digest, **{f"known {name}": output.digest for name, output in others.items()}}

    def work(step: Step) -> Output:
        started = time.time()
        parts = seen.parts(step.fs)
        outside = {name: np.unique(np.concatenate(list(_hashes(other, step)))) for name, other in others.items()}
        stranger = np.unique(np.concatenate([np.empty(0, np.uint64), *outside.values()]))
        near = _pairs(step, seen, parts, stranger, most)
        foreign = np.isin(near, stranger)
        values, group = connected_groups(near[~foreign.any(axis=1)])
        touching = np.union1d(
            near[foreign[:, 1], 0], near[foreign[:, 0], 1]
        )  # also a pool hash that equals a known one
        grouped, close = ([NEAR_DUPLICATES.empty_table()] for _ in range(2))
        told = dict.fromkeys(outside, 0)
        for part in parts:
            table = read_part(seen, step.fs, part)
            row, mine = table["row"].to_numpy(), table["hash"].to_numpy()
            at = np.isin(mine, touching)
            close.append(_like(part.unit, row[at], np.full(at.sum(), -1)))
            for name, theirs in outside.items():
                told[name] += int(np.isin(mine[at], _neighbours(near, theirs)).sum())
            at = np.isin(mine, values) & ~at
            grouped.append(_like(part.unit, row[at], group[np.searchsorted(values, mine[at])]))
        made = [step.put_part(unit, pa.concat_tables(one)) for unit, one in enumerate((grouped, close))]
        count = len(np.unique(pa.concat_tables(grouped)["group"].to_numpy()))
        summary = {"groups": count, "grouped": made[0].rows, "near known": made[1].rows, "known": told}
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


def _pairs(step: Step, seen: Output, parts: Sequence[Part], stranger: Hashes, most: int) -> Pairs:
    """All near pairs of the pool and of `stranger` together, distinct."""
    rows = sum(part.rows for part in parts) + len(stranger)
    shares = -(-rows // ROWS_AT_ONCE)
    shared, listed = ray.put(stranger), ray.put(list(parts))
    tables = [(2**64 - 1, 0), *((mask, most) for mask in masks(rows, most) if most)]
    waiting = [
        _compare.remote(step, seen, listed, shared, mask, bits, share, shares)
        for mask, bits in tables
        for share in range(shares)
    ]
    found = np.empty((0, 2), np.uint64)
    while waiting:
        ready, waiting = ray.wait(waiting)
        found = np.unique(np.concatenate([found, *ray.get(ready)]), axis=0)
    return found


@ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)
def _compare(
    step: Step, seen: Output, parts: list[Part], stranger: Hashes, mask: int, most: int, share: int, shares: int
) -> Pairs:
    """Near pairs in one share of one table; with `most` 0, hashes that come more than once."""
    held = [stranger[bucket_of(stranger, mask, shares) == share]]
    for part in parts:
        mine = read_part(seen, step.fs, part, ["hash"])["hash"].to_numpy()
        held.append(mine[bucket_of(mine, mask, shares) == share])
    together = np.concatenate(held)
    return near_pairs(np.unique(together), mask, most) if most else repeated(together)


@ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)
def _perceive(step: Step, manifest: Manifest, shards: list[int]) -> list[Part]:
    torch.set_num_threads(1)
    return [step.put_part(shard, hash_shard(manifest, shard)) for shard in shards]


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
