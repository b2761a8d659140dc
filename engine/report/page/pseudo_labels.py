"""The pseudo-labels of every generation: what was kept of each class, the confidences with the cut, how many are right, and what changed."""

from dataclasses import dataclass

import numpy as np

from engine.ground.run import Pointer
from engine.ground.steps import Output
from engine.report.page.attempt import Attempt, attempt
from engine.report.page.charts import Chart, balance_chart, confidence_chart
from engine.report.page.label_checks import ChurnPart, Precision, check_precision, compare_selections
from engine.report.page.sample import batches, sample_parts
from engine.report.page.source import RunRecord
from engine.select.exclusion import excluded_counts
from engine.select.scores import probability, scores_of

BINS = 25


@dataclass(frozen=True)
class ClassCounts:
    """What a selection found and kept of a class. `lowest`: score of the worst image that was kept."""

    name: str
    available: int
    kept: int
    draws: int
    quota: int | None
    lowest: float | None
    cut: float


@dataclass(frozen=True)
class Confidences:
    """The histogram with the cut."""

    chart: Chart
    note: str


@dataclass(frozen=True)
class SelectionPart:
    """One selection of the run; classes are sorted, the fewest kept first."""

    title: str
    step: str
    images: int
    available: int
    kept: int
    warnings: tuple[str, ...]
    excluded: dict[str, int]
    classes: tuple[ClassCounts, ...]
    has_quota: bool
    balance: Attempt[Chart]
    confidences: Attempt[Confidences]
    precision: Attempt[Precision | None]
    churn: Attempt[ChurnPart | None]

    @property
    def share(self) -> float:
        return self.kept / max(1, self.images)


def pseudo_labels(record: RunRecord) -> tuple[SelectionPart, ...]:
    """A part for each selection of the run, in order."""
    found = record.selections()
    parts = []
    for place, (pointer, output) in enumerate(found):
        before = found[place - 1] if place else None
        parts.append(_selection(record, pointer, output, before))
    return tuple(parts)


def _selection(
    record: RunRecord, pointer: Pointer, output: Output, before: tuple[Pointer, Output] | None
) -> SelectionPart:
    report = output.summary["report"]
    classes = [
        ClassCounts(
            one["name"],
            one["available"],
            one["kept"],
            one["copies"],
            one.get("quota", report["per_class"]),
            one["lowest"],
            one["cut"],
        )
        for one in report["classes"]
    ]
    names = [one.name for one in classes]
    return SelectionPart(
        pointer.title,
        output.step,
        report["images"],
        report["available"],
        output.summary["selected"],
        tuple(report["warnings"]),
        excluded_counts(output),
        tuple(sorted(classes, key=lambda one: (one.kept, one.available, one.name))),
        any(one.quota is not None for one in classes),
        attempt(_balance, classes),
        attempt(_confidences, record, pointer, output, classes),
        attempt(check_precision, record, output, names),
        attempt(compare_selections, record, before, output, names),
    )


def _balance(classes: list[ClassCounts]) -> Chart:
    available, kept = (np.array([getattr(one, name) for one in classes], np.int64) for name in ("available", "kept"))
    quota = [one.quota for one in classes if one.quota is not None]
    return balance_chart([one.name for one in classes], available, kept, quota or None)


def _confidences(record: RunRecord, pointer: Pointer, output: Output, classes: list[ClassCounts]) -> Confidences:
    """The best class's probability over a bounded number of shards; finer near 1."""
    predictions = record.predictions_of(output)
    sample = sample_parts(predictions, record.store)
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    for table in batches(sample, record.store.fs, ["classes", "scores"]):
        counts += np.histogram(probability(scores_of(table)[:, 0]), edges)[0]
    note = sample.note
    cuts = [one.cut for one in classes if one.cut < 1] or [1.0]
    ranked = pointer.record["settings"].get("score", "max_probability")
    if ranked != "max_probability":
        cuts = [1.0]
        note = f"{note} The selection ranks by {ranked}, so its cut has no place here.".strip()
    first = max(0, min(int(np.argmax(counts > 0)), int(min(cuts) * BINS)) - 1)
    return Confidences(confidence_chart(edges[first:], counts[first:], cuts), note)
