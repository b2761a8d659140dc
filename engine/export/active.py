"""Active learning: the images to label next, by uncertainty, disagreement or diversity, with a number per class.

A shortlist is streamed from the stored predictions in O(classes x per_class) memory; only its images are read, to drop near duplicates.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.dedup.perceptual import Hashes, hashes, thumbnail
from engine.export.files import check_absent, csv_lines
from engine.export.step_export import StepExport
from engine.ground import storage
from engine.ground.steps import Output, read_part
from engine.images.errors import RejectedImageError
from engine.images.manifest import Manifest
from engine.select.active import bits, disagreement, diverse, pick_dissimilar, uncertainty
from engine.select.scores import classes_of, scores_of
from engine.select.topk import TopK, Winners

By = Literal["uncertainty", "disagreement", "diversity"]
SHORTLIST = 10
"""Candidates per image of the result, so that near duplicates can be dropped."""
NEXT = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("class", pa.string()),  # predicted by the teacher
        ("score", pa.float32()),  # minus the margin of the two best classes, or the share of the mass in disagreement
    ]
)


@dataclass(frozen=True)
class ActiveQuery:
    """A query: `per_class` images per class, no two with perceptual hashes within `max_distance` of 64 bits."""

    by: By
    per_class: int
    max_distance: int = 8


def find_next_to_label(step: StepExport, query: ActiveQuery, second: Output | None = None) -> pa.Table:
    """The images to label (NEXT), by class, highest score first. `second`: predictions of the same pool by another teacher, for disagreement.

    Diversity picks from the most uncertain images those that are farthest apart in perceptual hash, starting with the most uncertain of each class.
    """
    winners = shortlist(step, query, second)
    seen, mine = hash_shortlist(step.manifest, winners)
    classes = winners.classes[mine]
    if query.by == "diversity":
        taken = mine[diverse(bits(seen), classes, query.per_class, math.sqrt(query.max_distance))]
    else:
        taken = mine[pick_dissimilar(seen, classes, query.per_class, query.max_distance)]
    shard, row = winners.shard[taken], winners.row[taken]
    keys = [step.manifest.resolve(int(s), np.array([r]))[0] for s, r in zip(shard, row, strict=True)]
    names = np.array(step.classes.names, object)[winners.classes[taken]]
    return pa.table([keys, shard, row, names.tolist(), winners.scores[taken].astype(np.float32)], schema=NEXT)


def shortlist(step: StepExport, query: ActiveQuery, second: Output | None) -> Winners:
    """The SHORTLIST x `per_class` most uncertain images of each class, or those with the largest disagreement."""
    top_k = TopK(len(step.classes), SHORTLIST * query.per_class)
    for first, other in _pairs(step, second if query.by == "disagreement" else None):
        classes, log_odds = classes_of(first), scores_of(first)
        rival = None if other is None else (classes_of(other), scores_of(other))
        score = uncertainty(log_odds) if rival is None else disagreement(classes, log_odds, *rival)
        shard, row = (first[name].to_numpy() for name in ("shard", "row"))
        top_k.update(np.ascontiguousarray(classes[:, 0]), score, shard, row)
    return top_k.result()


def hash_shortlist(manifest: Manifest, winners: Winners) -> tuple[Hashes, np.ndarray]:
    """Perceptual hashes of the candidates that can be decoded, and their positions, ascending."""
    small = {}
    for shard in np.unique(winners.shard):
        places = np.flatnonzero(winners.shard == shard)
        by_row = {int(winners.row[place]): int(place) for place in places}
        for batch in manifest.read(int(shard), np.array(sorted(by_row), np.int32)):
            for row, image in zip(batch["row"].to_pylist(), batch["image"], strict=True):
                try:
                    small[by_row[row]] = hashes(thumbnail(image.as_buffer())[None])[0]
                except RejectedImageError:
                    continue  # decoded by predict, but changed since: it cannot be labelled now
    mine = np.array(sorted(small), np.intp)
    return np.array([small[place] for place in mine], np.uint64), mine


def _pairs(step: StepExport, second: Output | None) -> Iterator[tuple[pa.Table, pa.Table | None]]:
    """The predictions part by part, with those of the second teacher for the same images."""
    fs = step.store.fs
    others = {part.unit: part for part in second.parts(fs)} if second is not None else {}
    for part in step.output.parts(fs):
        table = read_part(step.output, fs, part)
        if second is None:
            yield table, None
        elif part.unit in others:
            other = read_part(second, fs, others[part.unit])
            first, then = table["row"].to_numpy(), other["row"].to_numpy()
            _, mine, theirs = np.intersect1d(first, then, assume_unique=True, return_indices=True)
            yield table.take(mine).combine_chunks(), other.take(theirs).combine_chunks()


def write(table: pa.Table, out: str, spreadsheets: bool = False) -> None:
    """Write `table` to a new file, a path or URI: Parquet for `.parquet`, else CSV. Raises ValueError when the file exists."""
    check_absent(out)
    fs, path = storage.resolve(out)
    if out.partition("?")[0].endswith(".parquet"):
        data = io.BytesIO()
        pq.write_table(table, data)
        storage.put(fs, path, data.getvalue())
        return
    storage.put(
        fs, path, csv_lines([list(row.values()) for row in table.to_pylist()], table.column_names, spreadsheets)
    )
