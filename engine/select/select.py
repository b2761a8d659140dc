"""Predictions to pseudo-labels: threshold, K a class, P classes an image, balance, hard or soft targets.

Streaming and mergeable: a thousand workers update a `Selector` each, the states are merged in any order, and the
table is the one that a single worker would have made. With K a class the state is O(classes x K); without, it grows
with what passes the threshold.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import schema
from engine.labels import targets
from engine.labels.classes import ClassManifest
from engine.select import scores
from engine.select.report import SelectReport
from engine.select.rule import Rule, rule_of
from engine.select.topk import TopK, Winners
from engine.settings import SelectSettings


class Selector:
    """The running selection of one set of settings over predictions of one class list."""

    def __init__(self, settings: SelectSettings, classes: ClassManifest, rule: Rule | None = None) -> None:
        """`rule`: what the settings come to on these predictions; needed where they depend on all scores."""
        self.settings = settings
        self.classes = classes
        self.rule = rule if rule is not None else rule_of(settings, classes)
        self.num_images = 0
        self._top_k = TopK(len(classes), self.rule.per_class, self.rule.cuts)
        self._top_p: int | None = None

    def empty(self) -> "Selector":
        """A fresh selection of the same settings and classes."""
        return Selector(self.settings, self.classes, self.rule)

    def update(self, predictions: pa.Table | pa.RecordBatch, where: str = "predictions") -> None:
        """Take in predictions; `where` names their file in messages."""
        self._check(predictions, where)
        for batch in _batches(predictions):
            shard, row = (np.asarray(batch.column(name)) for name in ("shard", "row"))
            classes, log_odds = scores.classes_of(batch), scores.scores_of(batch)
            scores.check_numbers(log_odds, shard, row)
            payload = (classes, log_odds) if self.settings.targets == "soft" else ()
            for place in range(self.settings.classes_per_image):
                columns = (np.ascontiguousarray(classes[:, place]), self._score(log_odds, place), shard, row, *payload)
                if (drawn := self.rule.drawn(*columns[:4])) is not None:
                    columns = tuple(column[drawn] for column in columns)
                chosen, score, shards, rows, *carried = columns
                self._top_k.update(chosen, score, shards, rows, carried)
        self.num_images += len(predictions)

    def merge(self, other: "Selector") -> None:
        """Take in what `other` has seen."""
        if self.settings != other.settings or self.rule != other.rule:
            raise ValueError("cannot merge selections of different settings")
        self.classes.check_same(other.classes, "the selection to merge")
        if None not in (self._top_p, other._top_p) and self._top_p != other._top_p:
            raise ValueError(f"cannot merge selections from top-{other._top_p} and top-{self._top_p} predictions")
        self._top_p = self._top_p or other._top_p
        self._top_k.merge(other._top_k)
        self.num_images += other.num_images

    def finish(self) -> tuple[pa.Table, SelectReport]:
        """The pseudo-labels (`schema.pseudo_labels`, sorted by class and rank) and the account of what was kept."""
        winners = self._top_k.result()
        found = np.bincount(winners.classes, minlength=len(self.classes))
        if self.settings.balance == "truncate" and found.any():
            winners = _first(winners, int(found[found > 0].min()))
        kept = np.bincount(winners.classes, minlength=len(self.classes))
        count = self._counts(winners, kept)
        target = self._targets(winners)
        columns = [
            pa.array(winners.shard),
            pa.array(winners.row),
            pa.array(winners.classes.astype(schema.class_dtype(len(self.classes)))),
            pa.array(winners.scores),
            pa.array(winners.rank),
            pa.array(count),
            target.classes,
            target.weights,
        ]
        table = pa.Table.from_arrays(columns, schema=schema.pseudo_labels(len(self.classes), self.classes.hash))
        lowest = np.full(len(self.classes), np.nan)
        lowest[winners.classes] = scores.probability(winners.scores)  # sorted best first: the last write is the lowest
        report = SelectReport(
            names=self.classes.names,
            num_images=self.num_images,
            threshold=self.settings.threshold,
            per_class=self.settings.per_class,
            balance=self.settings.balance,
            available=self._top_k.available.copy() if self.rule.thinning is None else self.rule.thinning.pool,
            kept=kept,
            copies=np.bincount(winners.classes, count, minlength=len(self.classes)).astype(np.int64),
            lowest=lowest,
            cut=self.rule.thresholds,
        )
        return table, report

    def _score(self, log_odds: scores.Half, place: int) -> scores.Half:
        """What images are ranked by for their class at `place`, (N, P) to (N,)."""
        if self.settings.score == "margin":
            return scores.margin_score(log_odds)
        return np.ascontiguousarray(log_odds[:, place])

    def _check(self, predictions: pa.Table | pa.RecordBatch, where: str) -> None:
        """Raise ValueError unless the predictions are of this class list and hold enough classes an image."""
        found = predictions.schema.metadata or {}
        top_p = int(found.get(schema.TOP_P, b"0"))
        schema.check(predictions, schema.predictions(len(self.classes), self.classes.hash, top_p), where)
        if self._top_p not in (None, top_p):
            raise ValueError(
                f"{where}: holds the top {top_p} classes an image, the predictions before it the top {self._top_p}"
            )
        if self.settings.classes_per_image > top_p:
            raise ValueError(
                f"{where}: classes_per_image={self.settings.classes_per_image}, but only the top {top_p} classes of an"
                f" image are stored: lower it, or predict again with predict.top_p={self.settings.classes_per_image}"
            )
        self._top_p = top_p

    def _counts(self, winners: Winners, kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """How often each winner is drawn an epoch.

        With duplication every non-empty class sums to K exactly, its best rows drawn once more than the others.
        """
        if self.rule.thinning is not None:
            return self.rule.thinning.counts(winners.classes, winners.scores, winners.shard, winners.row)
        if self.settings.balance != "duplicate" or self.settings.per_class is None:
            return np.ones(len(winners.classes), dtype=np.int32)
        of_class = kept[winners.classes]
        return (self.settings.per_class // of_class + (winners.rank < self.settings.per_class % of_class)).astype(
            np.int32
        )

    def _targets(self, winners: Winners) -> targets.Targets:
        if self.settings.targets == "hard":
            return targets.hard(winners.classes, len(self.classes))
        if not winners.payload:  # nothing passed
            return targets.hard(winners.classes[:0], len(self.classes))
        classes, log_odds = winners.payload
        return targets.sparse(
            classes, soften(log_odds, self.settings.temperature, len(self.classes)), len(self.classes)
        )


def soften(log_odds: npt.NDArray[np.float16], temperature: float, num_classes: int) -> npt.NDArray[np.float32]:
    """Weights of soft targets from stored scores, (N, P) to (N, P).

    At temperature 1 they are the teacher's probabilities and what is not stored stays residual mass. At another
    temperature p^(1/T) is renormalised over the stored classes: what is not stored cannot be sharpened.
    """
    log_p = scores.log_probability(log_odds) / temperature
    whole = temperature != 1 or log_odds.shape[1] == num_classes
    log_p -= log_p.max(axis=1, keepdims=True) if whole else 0
    weights = np.exp(log_p)
    total = weights.sum(axis=1, keepdims=True)
    return (weights / (total if whole else np.maximum(total, 1))).astype(np.float32)


def _first(winners: Winners, k: int) -> Winners:
    """The k best of each class."""
    keep = winners.rank < k
    columns = {name: column[keep] for name, column in winners._asdict().items() if name != "payload"}
    return Winners(**columns, payload=tuple(column[keep] for column in winners.payload))


def _batches(predictions: pa.Table | pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batches that share the table's memory."""
    yield from [predictions] if isinstance(predictions, pa.RecordBatch) else predictions.to_batches()
