"""What a selection leaves out, found on Ray: images named by key, near duplicates in the pool, images near a labelled or evaluation one."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.dedup.near_duplicates import find_near_duplicates
from engine.ground import storage
from engine.ground.fanout import FanOut
from engine.ground.record import content_digest
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, read_part, read_tables
from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.select.addresses import Addresses, BestOfGroups, addresses, table_of
from engine.select.scores import best_score
from engine.settings.select import RankBy, SelectSettings

LEFT_OUT = "left-out"


@dataclass(frozen=True)
class ReferenceSets:
    """The pool that was predicted, and the labelled and evaluation sets that its images must not be near."""

    pool: Collection
    known: Mapping[str, Collection] = field(default_factory=dict)


@dataclass(frozen=True)
class ExclusionRules:
    """What is left out besides the images of earlier generations. `inputs` name it in the fingerprint."""

    inputs: dict[str, str] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    near: Output | None = None
    pool: Manifest | None = None
    """Where the keys are looked up."""


def exclusion(run: Run, label: str, settings: SelectSettings, around: ReferenceSets | None) -> ExclusionRules:
    """What the settings ask to leave out. Raises ValueError where the pool is not known, or the file of keys cannot be read."""
    if settings.exclude_keys is None and settings.near_duplicates is None:
        return ExclusionRules()
    if around is None:
        raise ValueError(
            "select.exclude_keys and select.near_duplicates look at the pool itself, and these predictions do not say where it is:"
            " leave both out, or label the pool again"
        )
    inputs, keys, near = {}, [], None
    if settings.exclude_keys is not None:
        keys = read_keys(settings.exclude_keys)
        inputs["keys"] = content_digest(keys)
    if settings.near_duplicates is not None:
        near = find_near_duplicates(run, f"{label} likeness", around.pool, around.known, settings.near_duplicates)
        inputs["near"] = near.digest
    return ExclusionRules(inputs, keys, near, around.pool.manifest)


def read_keys(path: str) -> list[str]:
    """The keys in a text file, one a line, sorted."""
    fs, place = storage.resolve(path)
    try:
        lines = storage.get(fs, place).decode().splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise ValueError(f"select.exclude_keys={path}: no readable text file of keys, one a line ({error})") from None
    return sorted({line.strip() for line in lines} - {""})


def find_excluded(
    fan_out: FanOut,
    predictions: Output,
    shares: Sequence[Sequence[Part]],
    excluded: ExclusionRules,
    score: RankBy,
    kept: Addresses,
) -> dict[str, Addresses]:
    """Sorted addresses of the images that are left out, by reason. `kept`: images that have their label already; what is near them
    is left out, too."""
    store = fan_out.step.store
    found = {}
    if excluded.keys:
        assert excluded.pool is not None, "refused before"
        found["named by key"] = addresses_of(excluded.pool, excluded.keys)
    if excluded.near is not None:
        grouped, close = (table for _, table in read_tables(excluded.near, store.fs))
        at = addresses(grouped)
        order = np.argsort(at)
        members, group = at[order], grouped["group"].to_numpy()[order]
        settled = np.isin(group, group[np.isin(members, kept)])
        empty = BestOfGroups(members[~settled], group[~settled])
        best = fan_out.merge(best_of_groups, shares, store, predictions, empty, score)
        found["near a better-scored image"] = np.union1d(best.beaten(), members[settled])
        found["near a labelled or evaluation image"] = np.sort(addresses(close))
    return found


def write_down(step: Step, found: Mapping[str, Addresses]) -> dict[str, int]:
    """Put the addresses beside the step's parts, for `explain`; returns their numbers by reason."""
    for unit, reason in enumerate(sorted(found)):
        step.put_sidecar(LEFT_OUT, unit, table_of(found[reason]))
    return {reason: len(addresses) for reason, addresses in found.items()}


def excluded_counts(pseudo: Output) -> dict[str, int]:
    """Images that a finished selection excluded, by reason."""
    return pseudo.summary.get("left out", {})


def reason_of(store: Store, pseudo: Output, shard: int, row: int) -> str | None:
    """Why an image was left out of a finished selection; None when it was not."""
    for unit, reason in enumerate(sorted(excluded_counts(pseudo))):
        mine = (pc.field("shard") == shard) & (pc.field("row") == row)
        path = f"{pseudo.folder}/{LEFT_OUT}/{unit:08d}.parquet"
        if pq.read_table(path, filesystem=store.fs, filters=mine).num_rows:
            return reason
    return None


def addresses_of(manifest: Manifest, keys: Sequence[str]) -> Addresses:
    """Sorted addresses of the images with these keys; keys of no image are passed over."""
    wanted = pa.array(keys, pa.string())
    found = [np.empty(0, np.int64)]
    for shard in range(manifest.num_shards):
        table = manifest.keys([shard])
        hits = pc.is_in(table["key"], wanted)
        found.append(addresses(table.filter(hits)))
    return np.sort(np.concatenate(found))


def best_of_groups(
    parts: Sequence[Part], store: Store, predictions: Output, empty: BestOfGroups, score: RankBy
) -> BestOfGroups:
    """The best-scored image of each group among some parts of the predictions."""
    best = copy.copy(empty)
    for part in parts:
        table = read_part(predictions, store.fs, part)
        best.update(table, best_score(table, score))
    return best
