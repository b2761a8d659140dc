"""Which images a person should label next, with their keys: uncertain, disputed or unlike one another, under a budget a class.

A shortlist is streamed from the stored predictions in O(classes x budget); its images alone are read, to leave out near duplicates.
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
"""Images looked at for each that is asked for, so that near duplicates can be left out."""
NEXT = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("class", pa.string()),  # what the teacher says
        ("score", pa.float32()),  # minus the margin of the two best classes, or the share of the mass that is disputed
    ]
)


@dataclass(frozen=True)
class ActiveQuery:
    """What is asked for: `budget` images a class, no two within `most` of 64 bits of their perceptual hashes."""

    by: By
    budget: int
    most: int = 8


def next_to_label(answers: StepExport, wish: ActiveQuery, second: Output | None = None) -> pa.Table:
    """The images (NEXT), by class, most wanted first. `second`: another teacher's predictions of the same pool, for disagreement.

    Diversity covers the most uncertain images by perceptual hash, the most uncertain of each class first.
    """
    winners = shortlist(answers, wish, second)
    seen, mine = hash_shortlist(answers.manifest, winners)
    classes = winners.classes[mine]
    if wish.by == "diversity":
        taken = mine[diverse(bits(seen), classes, wish.budget, math.sqrt(wish.most))]
    else:
        taken = mine[pick_dissimilar(seen, classes, wish.budget, wish.most)]
    shard, row = winners.shard[taken], winners.row[taken]
    keys = [answers.manifest.resolve(int(s), np.array([r]))[0] for s, r in zip(shard, row, strict=True)]
    names = np.array(answers.classes.names, object)[winners.classes[taken]]
    return pa.table([keys, shard, row, names.tolist(), winners.scores[taken].astype(np.float32)], schema=NEXT)


def shortlist(answers: StepExport, wish: ActiveQuery, second: Output | None) -> Winners:
    """The most uncertain or most disputed images of each class, SHORTLIST times the budget."""
    top_k = TopK(len(answers.classes), SHORTLIST * wish.budget)
    for first, other in _pairs(answers, second if wish.by == "disagreement" else None):
        classes, log_odds = classes_of(first), scores_of(first)
        rival = None if other is None else (classes_of(other), scores_of(other))
        score = uncertainty(log_odds) if rival is None else disagreement(classes, log_odds, *rival)
        shard, row = (first[name].to_numpy() for name in ("shard", "row"))
        top_k.update(np.ascontiguousarray(classes[:, 0]), score, shard, row)
    return top_k.result()


def hash_shortlist(manifest: Manifest, winners: Winners) -> tuple[Hashes, np.ndarray]:
    """Perceptual hashes of the winners that can be decoded, and which those are, in their order."""
    small = {}
    for shard in np.unique(winners.shard):
        places = np.flatnonzero(winners.shard == shard)
        by_row = {int(winners.row[place]): int(place) for place in places}
        for batch in manifest.read(int(shard), np.array(sorted(by_row), np.int32)):
            for row, image in zip(batch["row"].to_pylist(), batch["image"], strict=True):
                try:
                    small[by_row[row]] = hashes(thumbnail(image.as_buffer())[None])[0]
                except RejectedImageError:
                    continue  # it was decoded when it was labelled; a person could not label it now
    mine = np.array(sorted(small), np.intp)
    return np.array([small[place] for place in mine], np.uint64), mine


def _pairs(answers: StepExport, second: Output | None) -> Iterator[tuple[pa.Table, pa.Table | None]]:
    """The predictions part by part, beside those of the second teacher for the same images."""
    fs = answers.store.fs
    others = {part.unit: part for part in second.parts(fs)} if second is not None else {}
    for part in answers.output.parts(fs):
        table = read_part(answers.output, fs, part)
        if second is None:
            yield table, None
        elif part.unit in others:
            other = read_part(second, fs, others[part.unit])
            first, then = table["row"].to_numpy(), other["row"].to_numpy()
            _, mine, theirs = np.intersect1d(first, then, assume_unique=True, return_indices=True)
            yield table.take(mine).combine_chunks(), other.take(theirs).combine_chunks()


def write(table: pa.Table, out: str) -> None:
    """Write `table` to a new file, a path or URI: Parquet when it ends so, else CSV. Raises ValueError when something is there."""
    check_absent(out)
    fs, path = storage.resolve(out)
    if out.partition("?")[0].endswith(".parquet"):
        data = io.BytesIO()
        pq.write_table(table, data)
        storage.put(fs, path, data.getvalue())
        return
    storage.put(fs, path, csv_lines([table.column_names, *(list(row.values()) for row in table.to_pylist())]))
