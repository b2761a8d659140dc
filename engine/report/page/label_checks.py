"""Pseudo-labels read back image by image, in bounded pieces: how many are right where the truth is known, and what changed between generations.

A selection in the order of its collection comes in ranges of about a million images (`gather/arrange.py`), the same for two selections of one
collection.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.gather.arrange import FEW_ROWS
from engine.ground.run import Pointer
from engine.ground.steps import Output
from engine.labels.classes import ClassList
from engine.metrics.calibration import binned
from engine.metrics.churn import Churn
from engine.report.page.charts import Chart, precision_chart
from engine.report.page.sample import batches, sample_parts
from engine.report.page.source import RunRecord
from engine.select.addresses import addresses
from engine.select.scores import probability
from engine.tasks.classify import Classify

MOST_RANGES = 4
"""Ranges that are read back."""
FLOWS = 10
EXAMPLES = 12
BINS = 20
COLUMNS = ["shard", "row", "class", "score"]


@dataclass(frozen=True)
class Flow:
    """Images whose pseudo-label went from one class to another."""

    before: str
    after: str
    images: int


@dataclass(frozen=True)
class Changed:
    """One image whose label changed: its address, the two classes, and its score now."""

    shard: int
    row: int
    before: str
    after: str
    score: float


@dataclass(frozen=True)
class ChurnPart:
    """Two successive selections compared: counts, the most frequent changes, and the most confident changed images."""

    previous: str
    counts: Churn
    flows: tuple[Flow, ...]
    examples: tuple[Changed, ...]
    note: str


@dataclass(frozen=True)
class Precision:
    """Pseudo-labels with known truth by confidence."""

    chart: Chart
    note: str


def check_precision(record: RunRecord, output: Output, names: Sequence[str]) -> Precision | None:
    """Share of right pseudo-labels by confidence, where the collection has labels that are classes of the run; training never reads them.

    None where there are none, and for tasks with other labels than one class per image.
    """
    if record.settings.get("task", "classify") != "classify":
        return None
    collection = record.collection_of(record.predictions_of(output))
    ordered = _ordered(record, output)
    if ordered is None or not set(collection.label_names) & set(names):
        return None
    task = Classify(ClassList(tuple(names)))
    confidence, right = [np.empty(0)], [np.empty(0, bool)]
    sample = sample_parts(ordered, record.store, MOST_RANGES)
    for table in batches(sample, record.store.fs, COLUMNS):
        truth = task.known_truth(collection, np.unique(table["shard"].to_numpy()).tolist())
        known = table.filter(pa.array(truth.holds(table)))
        if known.num_rows:
            confidence.append(probability(known["score"].to_numpy()))
            right.append(task.correct(known, truth))
    if not (found := np.concatenate(confidence)).size:
        return None
    return Precision(precision_chart(binned(found, np.concatenate(right), BINS)), sample.note)


def compare_selections(
    record: RunRecord, before: tuple[Pointer, Output] | None, output: Output, names: Sequence[str]
) -> ChurnPart | None:
    """What changed since the selection before; None for the first one, and where the two are of different collections."""
    if before is None or _images(record, before[1]) != _images(record, output):
        return None
    old, new = _ordered(record, before[1]), _ordered(record, output)
    if old is None or new is None:
        return None
    counts, flows = Churn(0, 0, 0, 0), Counter[int]()
    examples: list[Changed] = []
    ranges, note = _ranges(record, old, new)
    for was, now in ranges:
        change, rows, classes = changed(was, now)
        counts += change
        pairs, images = np.unique(classes[:, 0] * len(names) + classes[:, 1], return_counts=True)
        flows.update(dict(zip(pairs.tolist(), images.tolist(), strict=True)))
        examples += _surest(now, rows, classes, names)
        examples = sorted(examples, key=lambda one: -one.score)[:EXAMPLES]
    return ChurnPart(
        before[0].title,
        counts,
        tuple(
            Flow(names[pair // len(names)], names[pair % len(names)], count) for pair, count in flows.most_common(FLOWS)
        ),
        tuple(examples),
        note,
    )


def changed(was: pa.Table, now: pa.Table) -> tuple[Churn, np.ndarray, np.ndarray]:
    """What happened between two tables, rows of `now` (n,) of the images whose best class changed, and their classes before and now (n, 2).

    The counts are those of `metrics.churn`.
    """
    (old, old_rows), (new, new_rows) = _best_of(was), _best_of(now)
    _, here, there = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    before = was["class"].to_numpy()[old_rows[here]].astype(np.int64)
    after = now["class"].to_numpy()[new_rows[there]].astype(np.int64)
    is_changed = before != after
    counts = Churn(len(here), int(is_changed.sum()), len(new) - len(here), len(old) - len(here))
    return counts, new_rows[there[is_changed]], np.stack([before, after], axis=1)[is_changed]


def _surest(now: pa.Table, rows: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> list[Changed]:
    """Of the changed images those with the highest scores."""
    score = now["score"].to_numpy()[rows].astype(np.float32)
    best = np.argsort(-score, kind="stable")[:EXAMPLES]
    shard, row = (now[name].to_numpy()[rows[best]] for name in ("shard", "row"))
    return [
        Changed(int(shard[i]), int(row[i]), names[classes[j, 0]], names[classes[j, 1]], float(score[j]))
        for i, j in enumerate(best.tolist())
    ]


def _best_of(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Distinct addresses, ascending, and the table's row with the best score of each."""
    at = addresses(table)
    if (np.diff(at) > 0).all():  # in order, and each image once: the usual case needs no sorting
        return at, np.arange(len(at))
    order = np.lexsort((table["class"].to_numpy(), -table["score"].to_numpy().astype(np.float32), at))
    distinct, first = np.unique(at[order], return_index=True)
    return distinct, order[first]


def _ordered(record: RunRecord, output: Output) -> Output | None:
    """The selection in the order of its collection: the step that `gather` made of it, or itself where it is small."""
    made = record.history.readers("arrange", "picks", output.digest)
    if made:
        return made[0][1]
    return output if output.summary["selected"] <= FEW_ROWS else None


def _images(record: RunRecord, output: Output) -> object:
    predictions = record.predictions_of(output)
    return record.store.step_json(predictions.step, "record.json").get("inputs", {}).get("images")


def _ranges(record: RunRecord, old: Output, new: Output) -> tuple[Iterator[tuple[pa.Table, pa.Table]], str]:
    """Both selections range by range, a bounded number of ranges, and what they are of."""
    fs = record.store.fs
    if not (old.step.startswith("arrange-") and new.step.startswith("arrange-")):
        return iter([(_whole(record, old), _whole(record, new))]), ""
    places = [{part.unit: part.name for part in one.parts(fs)} for one in (old, new)]
    shared = sorted(places[0].keys() & places[1].keys())
    chosen = [shared[int(i)] for i in np.linspace(0, len(shared) - 1, min(len(shared), MOST_RANGES))]
    note = "" if len(chosen) == len(shared) else f"From {len(chosen)} of {len(shared)} ranges of the collection."

    def read(output: Output, name: str) -> pa.Table:
        return pq.read_table(f"{output.folder}/parts/{name}", filesystem=fs, columns=COLUMNS, use_threads=False)

    return ((read(old, places[0][unit]), read(new, places[1][unit])) for unit in chosen), note


def _whole(record: RunRecord, output: Output) -> pa.Table:
    return pa.concat_tables(batches(sample_parts(output, record.store), record.store.fs, COLUMNS))
