"""The histogram of a prediction pass as a durable step: counted once, then every preview and every adaptive cut is instant.

Integers are added, so the step is the same however the parts were shared out. No Ray: `reduce` counts on a cluster with the same lines.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from engine.ground.record import StepRecord
from engine.ground.steps import Output, Part, Step, Store, read_part, read_tables
from engine.select import scores
from engine.select.histogram import Histogram
from engine.settings.select import RankBy

REVISION = 1
VERB = "histogram"


@dataclass
class ScoreHistograms:
    """Histograms of the best class's score, and of the log-odds of all stored classes. Mergeable and picklable."""

    score: RankBy
    best: Histogram
    stored: Histogram

    def update(self, predictions: pa.Table) -> None:
        """Count the images of a predictions table. Raises ValueError for a score that is not a number."""
        classes, log_odds = scores.classes_of(predictions), scores.scores_of(predictions)
        scores.check_numbers(log_odds, *(predictions[name].to_numpy() for name in ("shard", "row")))
        self.best.update(classes[:, 0], scores.best_score(predictions, self.score))
        self.stored.update(classes, log_odds)

    def merge(self, other: "ScoreHistograms") -> None:
        """Add what `other` has counted. Raises ValueError when it counted another score."""
        if self.score != other.score:
            raise ValueError(f"cannot merge histograms of {other.score} and {self.score}")
        self.best.merge(other.best)
        self.stored.merge(other.stored)


def count(parts: Iterable[Part], store: Store, predictions: Output, num_classes: int, score: RankBy) -> ScoreHistograms:
    """Stream some parts of the predictions into histograms."""
    counted = ScoreHistograms(score, Histogram(num_classes), Histogram(num_classes))
    for part in parts:
        counted.update(read_part(predictions, store.fs, part))
    return counted


def record_of(predictions: Output, num_classes: int, score: RankBy) -> StepRecord:
    """What names the histogram of `predictions`."""
    settings = {"score": score, "num_classes": num_classes}
    return StepRecord(VERB, REVISION, settings, {"predictions": predictions.digest})


def commit(step: Step, counted: ScoreHistograms, started: float) -> Output:
    """Write the histograms: part 0 the best classes, part 1 all stored ones."""
    parts = [step.put_part(unit, one.table()) for unit, one in enumerate((counted.best, counted.stored))]
    return step.commit(parts, {"images": int(counted.best.counts.sum()), "score": counted.score}, started)


def read(output: Output, store: Store, num_classes: int) -> ScoreHistograms:
    """What `commit` wrote."""
    best, stored = (Histogram.of(table, num_classes) for _, table in read_tables(output, store.fs))
    return ScoreHistograms(output.summary["score"], best, stored)


def histograms(
    store: Store, predictions: Output, num_classes: int, score: RankBy = "max_probability"
) -> ScoreHistograms:
    """The histograms of a finished prediction pass: read, or counted now by this process and kept."""
    return read(find_histograms(store, predictions, num_classes, score), store, num_classes)


def best_histogram(store: Store, predictions: Output, num_classes: int, score: RankBy = "max_probability") -> Histogram:
    """That of the best classes alone: all that a preview needs."""
    output = find_histograms(store, predictions, num_classes, score)
    return Histogram.of(read_part(output, store.fs, output.parts(store.fs)[0]), num_classes)


def find_histograms(store: Store, predictions: Output, num_classes: int, score: RankBy) -> Output:
    """The histogram step of a finished prediction pass, found or made by this process."""
    step = store.step(record_of(predictions, num_classes, score))
    output = step.output()
    if output is None:
        started = time.time()
        step.begin()
        output = commit(step, count(predictions.parts(store.fs), store, predictions, num_classes, score), started)
    return output
