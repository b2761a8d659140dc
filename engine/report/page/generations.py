"""The generations side by side: scores, classes, confusions, calibration and training curves."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from engine.ground import storage
from engine.metrics.calibration import binned
from engine.metrics.score import Score
from engine.report.page.attempt import Attempt, attempt
from engine.report.page.charts import Chart, curves_chart, reliability_chart, score_chart
from engine.report.page.evidence import is_right, rows_of
from engine.report.page.source import GenerationRecord, RunRecord

WORST = 10
CONFUSIONS = 10
CURVES = 6
SETS = {"validation": "validation images", "test": "test images"}


@dataclass(frozen=True)
class ModelRow:
    """One model of the run."""

    name: str
    is_chosen: bool
    validation: Score | None
    test: Score | None
    pseudo_labels: int | None
    pseudo_correct: float | None
    seconds: float


@dataclass(frozen=True)
class ClassRow:
    """The score of a class by every model, in their order, and how much it rose from the first to the model to use."""

    name: str
    values: tuple[float | None, ...]
    change: float | None


@dataclass(frozen=True)
class Confusion:
    """How many images of a class were taken for another before and after."""

    truth: str
    predicted: str
    before: int
    after: int

    @property
    def change(self) -> int:
        return self.after - self.before


@dataclass(frozen=True)
class CalibrationRow:
    """A temperature fitted on validation images, and the expected calibration error before and after."""

    title: str
    temperature: float
    before: float
    after: float


@dataclass(frozen=True)
class Generations:
    """All of the section. `on` names the set of the classes, confusions and the reliability diagram; rows are sorted, the worst first."""

    models: tuple[ModelRow, ...]
    on: str
    scores: Attempt[Chart | None]
    classes: tuple[ClassRow, ...]
    worst: int
    confusions: Attempt[tuple[Confusion, ...]]
    reliability: Attempt[Chart | None]
    calibrations: tuple[CalibrationRow, ...]
    curves: Attempt[Chart | None]


def generations(record: RunRecord) -> Generations:
    """The section of a run."""
    found, on, chosen = record.generations, record.main_set, record.chosen
    scored = [(one.name, one.scores[on]) for one in found if on in one.scores]
    last = chosen or (found[-1] if found else None)
    ends = [one for one in (found[0], last) if one is not None] if found else []
    if len(ends) == 2 and ends[0] is ends[1]:
        ends = ends[:1]
    return Generations(
        tuple(_model_row(one, chosen) for one in found),
        SETS[on],
        attempt(lambda: score_chart(scored, SETS[on]) if scored else None),
        class_rows([one.scores.get(on) for one in found], found.index(last) if last in found else 0),
        WORST,
        attempt(_confusions, record, ends, on),
        attempt(_reliability, record, ends, on),
        tuple(_calibrations(record)),
        attempt(_curves, record),
    )


def class_rows(scores: Sequence[Score | None], chosen: int) -> tuple[ClassRow, ...]:
    """A row for each class that any model was measured on, the worst of the model at `chosen` first."""
    names = dict.fromkeys(name for score in scores if score is not None for name in score.per_class)
    rows = []
    for name in names:
        values = tuple(score.per_class.get(name) if score is not None else None for score in scores)
        first, last = values[0], values[chosen]
        rows.append(ClassRow(name, values, last - first if chosen and first is not None and last is not None else None))
    return tuple(sorted(rows, key=lambda row: (-1.0 if (value := row.values[chosen]) is None else value, row.name)))


def confusions(before: pa.Table, after: pa.Table, names: Sequence[str]) -> tuple[Confusion, ...]:
    """The confusions whose number changed most, of two evaluations' rows with `truth` and `predicted`."""
    counts = [_wrong_pairs(rows, len(names)) for rows in (before, after)]
    pairs = np.union1d(counts[0][0], counts[1][0])
    old, new = (_aligned(pairs, *one) for one in counts)
    order = np.lexsort((pairs, -np.maximum(old, new), -np.abs(new - old)))[:CONFUSIONS]
    return tuple(
        Confusion(names[pairs[i] // len(names)], names[pairs[i] % len(names)], int(old[i]), int(new[i]))
        for i in order.tolist()
    )


def _wrong_pairs(rows: pa.Table, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    wrong = rows.filter(pa.array(~is_right(rows)))
    pairs = wrong["truth"].to_numpy().astype(np.int64) * num_classes + wrong["predicted"].to_numpy()
    return np.unique(pairs, return_counts=True)


def _aligned(pairs: np.ndarray, own: np.ndarray, counts: np.ndarray) -> np.ndarray:
    aligned = np.zeros(len(pairs), np.int64)
    aligned[np.searchsorted(pairs, own)] = counts
    return aligned


def _model_row(one: GenerationRecord, chosen: GenerationRecord | None) -> ModelRow:
    validation, test = (one.scores.get(on) for on in ("validation", "test"))
    return ModelRow(one.name, one is chosen, validation, test, one.pseudo_labels, one.pseudo_correct, one.seconds)


def _confusions(record: RunRecord, ends: Sequence[GenerationRecord], on: str) -> tuple[Confusion, ...]:
    rows = [rows_of(one.evaluations[on], record.store) for one in ends if on in one.evaluations]
    known = [table for table in rows if table is not None]
    if not known:
        return ()
    return confusions(known[0], known[-1], record.class_names(ends[-1]))


def _reliability(record: RunRecord, ends: Sequence[GenerationRecord], on: str) -> Chart | None:
    models = []
    for one in ends:
        rows = rows_of(one.evaluations[on], record.store) if on in one.evaluations else None
        if rows is not None and rows.num_rows:
            models.append((one.name, binned(rows["confidence"].to_numpy(), is_right(rows), 10)))
    return reliability_chart(models, SETS[on]) if models else None


def _calibrations(record: RunRecord) -> Iterator[CalibrationRow]:
    for pointer, output in record.history.of("calibrate"):
        summary = output.summary
        yield CalibrationRow(pointer.title, summary["temperature"], summary["ece_before"], summary["ece_after"])


def _curves(record: RunRecord) -> Chart | None:
    """The loss of the last fits that this run trained itself: the curves of reused ones are with the run that trained them."""
    found = []
    for step in record.steps:
        path = f"{record.store.root}/runs/{record.name}/metrics/{step.title.replace(' ', '-')}.jsonl"
        if step.verb == "fit" and storage.exists(record.store.fs, path):
            lines = [json.loads(line) for line in storage.get(record.store.fs, path).splitlines()]
            points = [(line["step"], line["loss"]) for line in lines if line.get("loss") is not None]
            if points:
                found.append((step.title, np.array(points, np.float64)))
    return curves_chart(found[-CURVES:]) if found else None
