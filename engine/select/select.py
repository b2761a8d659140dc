"""Predictions to pseudo-labels: threshold, K a class, P classes an image, balance, hard or soft targets.

Streaming and mergeable: a thousand workers update a `Selector` each, the states are merged in any order, and the
table is the one that a single worker would have made. With K a class the state is O(classes x K); without, it grows
with what passes the threshold.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.labels import targets
from engine.labels.classes import ClassList
from engine.select import scores
from engine.select.quota import truncated, weights
from engine.select.report import SelectReport
from engine.select.rule import CutRule, make_rule
from engine.select.topk import TopK, Winners
from engine.settings.select import SelectSettings
from engine.tables import schema

Candidates = list[npt.NDArray[Any]]
"""Class, score, shard and row of rows that compete (M,), and what soft targets need of them (M, …)."""


class Selector:
    """The running selection of one set of settings over predictions of one class list."""

    def __init__(self, settings: SelectSettings, classes: ClassList, rule: CutRule | None = None) -> None:
        """`rule`: what the settings come to on these predictions; needed where they depend on all scores."""
        self.settings = settings
        self.classes = classes
        self.rule = rule if rule is not None else make_rule(settings, classes)
        self.num_images = 0
        self._top_k = TopK(len(classes), self.rule.quota, self.rule.cuts)
        self._seen: pa.Schema | None = None

    def empty(self) -> "Selector":
        """A fresh selection of the same settings and classes."""
        return Selector(self.settings, self.classes, self.rule)

    def update(self, predictions: pa.Table | pa.RecordBatch, where: str = "predictions") -> None:
        """Take in predictions; `where` names their file in messages."""
        for chosen, score, shard, row, *payload in self.candidates(predictions, where):
            self._top_k.update(chosen, score, shard, row, payload)
        self.num_images += len(predictions)

    def candidates(self, predictions: pa.Table | pa.RecordBatch, where: str = "predictions") -> Iterator[Candidates]:
        """What competes: class, score, shard and row of each image for each of its classes (M,), and what soft targets need of
        it. Images that a draw leaves out are not among them; those below the cuts are."""
        self._check(predictions, where)
        for batch in _batches(predictions):
            shard, row = (np.asarray(batch.column(name)) for name in ("shard", "row"))
            classes, log_odds = scores.classes_of(batch), scores.scores_of(batch)
            scores.check_numbers(log_odds, shard, row)
            payload = self._payload(batch, classes, log_odds)
            for place in range(self.settings.classes_per_image):
                score = (
                    np.ascontiguousarray(log_odds[:, place]) if place else scores.best_score(batch, self.settings.score)
                )
                columns = [np.ascontiguousarray(classes[:, place]), score, shard, row, *payload]
                drawn = self.rule.drawn(*columns[:4])
                yield columns if drawn is None else [column[drawn] for column in columns]

    def merge(self, other: "Selector") -> None:
        """Take in what `other` has seen."""
        if self.settings != other.settings or self.rule != other.rule:
            raise ValueError("cannot merge selections of different settings")
        self.classes.check_same(other.classes, "the selection to merge")
        if self._seen is not None and other._seen is not None:
            schema.check(other._seen.empty_table(), self._seen, "the selection to merge")
        self._seen = self._seen or other._seen
        self._top_k.merge(other._top_k)
        self.num_images += other.num_images

    def finish(self) -> tuple[pa.Table, SelectReport]:
        """The pseudo-labels (`schema.pseudo_labels`, sorted by class and rank) and the account of what was kept."""
        winners = self._top_k.result()
        if self.settings.balance == "truncate":
            found = np.bincount(winners.classes, minlength=len(self.classes))
            winners = _first(winners, truncated(found, weights(self.settings, self.classes)))
        table = self.table(winners)
        return table, self.report([table], self._top_k.available.copy(), self.num_images)

    def table(self, winners: Winners) -> pa.Table:
        """The pseudo-labels that winners of whole classes make."""
        columns = [
            pa.array(winners.shard),
            pa.array(winners.row),
            pa.array(winners.classes.astype(schema.class_dtype(len(self.classes)))),
            pa.array(winners.scores),
            pa.array(winners.rank),
            pa.array(self._counts(winners)),
            *self._targets(winners),
        ]
        return pa.Table.from_arrays(columns, schema=schema.pseudo_labels(len(self.classes), self.classes.hash))

    def report(self, tables: Iterable[pa.Table], available: npt.NDArray[np.int64], num_images: int) -> SelectReport:
        """The account of pseudo-labels that come in one table or several; `available` (C,) candidates above the cuts."""
        kept, copies = (np.zeros(len(self.classes), np.int64) for _ in range(2))
        lowest = np.full(len(self.classes), np.nan)
        for table in tables:
            index = table["class"].to_numpy()
            kept += np.bincount(index, minlength=len(self.classes))
            copies += np.bincount(index, table["count"].to_numpy(), minlength=len(self.classes)).astype(np.int64)
            lowest[index] = self._told(table["score"].to_numpy())  # sorted best first: the last write is the lowest
        return SelectReport(
            names=self.classes.names,
            num_images=num_images,
            threshold=self.settings.threshold,
            quota=self.rule.quota,
            per_class=self.settings.per_class,
            balance=self.settings.balance,
            available=available if self.rule.thinning is None else self.rule.thinning.pool,
            kept=kept,
            copies=copies,
            lowest=lowest,
            cut=self._told(self.rule.cuts) if self.rule.thinning is None else self.rule.thinning.threshold,
        )

    def _told(self, score: scores.Half) -> npt.NDArray[np.float64]:
        """A score as a person reads it: a probability, except for the energy, which is none."""
        return score.astype(np.float64) if self.settings.score == "energy" else scores.probability(score)

    def _payload(
        self, batch: pa.RecordBatch, classes: npt.NDArray[np.unsignedinteger], log_odds: scores.Half
    ) -> list[npt.NDArray[Any]]:
        """What soft targets need of each image: classes and log-odds (N, P), and where they are sharpened the log-sum-exp (N, 1)."""
        if self.settings.targets == "hard":
            return []
        name = schema.log_sum_exp(self.settings.temperature)
        return [classes, log_odds, *([np.asarray(batch.column(name))[:, None]] if name in batch.schema.names else [])]

    def _check(self, predictions: pa.Table | pa.RecordBatch, where: str) -> None:
        """Raise ValueError unless the predictions are of this class list and hold what the settings need."""
        found = predictions.schema.metadata or {}
        top_p = int(found.get(schema.TOP_P, b"0"))
        names = scores.further_names(predictions)
        expected = schema.predictions(len(self.classes), self.classes.hash, top_p, names)
        schema.check(predictions, self._seen or expected, where)
        chosen = self.settings
        if chosen.classes_per_image > top_p:
            raise ValueError(
                f"{where}: classes_per_image={chosen.classes_per_image}, but only the top {top_p} classes of an"
                f" image are stored: lower it, or predict again with predict.top_p={chosen.classes_per_image}"
            )
        sharpened = chosen.targets == "soft" and chosen.temperature != 1
        if sharpened and top_p < len(self.classes) and schema.log_sum_exp(chosen.temperature) not in names:
            raise ValueError(
                f"{where}: soft targets at temperature {chosen.temperature:g} need the sum over all {len(self.classes)} classes, and the top"
                f" {top_p} are stored without it: predict again with predict.log_sum_exp=[{chosen.temperature:g}]"
                f" or predict.top_p={len(self.classes)}, or set select.temperature=1"
            )
        self._seen = expected

    def _counts(self, winners: Winners) -> npt.NDArray[np.int32]:
        """How often each winner is drawn an epoch.

        With duplication every non-empty class sums to its K exactly, its best rows drawn once more than the others.
        """
        if self.rule.thinning is not None:
            return self.rule.thinning.counts(winners.classes, winners.scores, winners.shard, winners.row)
        if self.settings.balance != "duplicate" or self.rule.quota is None:
            return np.ones(len(winners.classes), dtype=np.int32)
        kept = np.bincount(winners.classes, minlength=len(self.classes))[winners.classes]
        wanted = self.rule.quota[winners.classes]
        return (wanted // kept + (winners.rank < wanted % kept)).astype(np.int32)

    def _targets(self, winners: Winners) -> targets.Targets:
        num_classes = len(self.classes)
        if self.settings.targets == "hard" or not winners.payload:  # without payload nothing passed
            return targets.hard(winners.classes, num_classes)
        classes, log_odds, *log_sum = winners.payload
        weights = soften(log_odds, self.settings.temperature, num_classes, log_sum[0] if log_sum else None)
        return targets.sparse(classes, weights, num_classes)


def soften(
    log_odds: scores.Half, temperature: float, num_classes: int, log_sum: scores.Half | None = None
) -> npt.NDArray[np.float32]:
    """Weights of soft targets from stored scores, (N, P) to (N, P): p^(1/T) over its sum over *all* classes.

    At temperature 1 that sum is 1. At another it is `log_sum` (N, 1), stored beside the scores, or that of the classes at hand
    where all are stored. What is not stored stays residual mass.
    """
    log_p = scores.log_probability(log_odds) / temperature
    if log_odds.shape[1] == num_classes:
        log_p -= np.logaddexp.reduce(log_p, axis=1, keepdims=True)
    elif log_sum is not None:
        log_p -= log_sum.astype(np.float64)
    weights = np.exp(log_p)
    return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def _first(winners: Winners, k: npt.NDArray[np.int64]) -> Winners:
    """The best of each class, `k` (C,) of them."""
    keep = winners.rank < k[winners.classes]
    columns = {name: column[keep] for name, column in winners._asdict().items() if name != "payload"}
    return Winners(**columns, payload=tuple(column[keep] for column in winners.payload))


def _batches(predictions: pa.Table | pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batches that share the table's memory."""
    yield from [predictions] if isinstance(predictions, pa.RecordBatch) else predictions.to_batches()
