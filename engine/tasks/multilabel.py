"""Several labels per image: mean average precision and macro F1 with bootstrap intervals over images, a permutation test of two models.

True labels are text with class names between semicolons or commas, such as `cat; red car`; empty text, or none, is an image without a label.
A class name holds neither character.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.ground.steps import Output, Store
from engine.images.collection import Collection
from engine.labels import targets
from engine.labels.classes import ClassList
from engine.labels.soft_tables import TargetKind
from engine.metrics.calibration import expected_calibration_error
from engine.metrics.interval import Interval, normal_interval
from engine.metrics.paired import PairedTest
from engine.metrics.ranking import AveragePrecision, f1_per_class, mean_over_known
from engine.metrics.resampling import RESAMPLES, Floats, Weights, bootstrap, permutation_p_value
from engine.metrics.score import Score
from engine.select.addresses import addresses
from engine.select.scores import classes_of, probability, scores_of
from engine.settings.block import SettingsError
from engine.settings.predict import PredictSettings
from engine.settings.run import RunSettings
from engine.settings.select import check_several_labels
from engine.tasks.answers import ClassAnswers
from engine.tasks.task import Sidecar, Truth, check_scored, known_classes, labelled_with, shared_rows, targets_table

SEPARATORS = r"\s*[;,]\s*"
DECISION = 0.5
"""Probability above which a class counts as predicted, for F1 and calibration."""
WORK = 2e9
"""Images x classes x resamples that are computed for an interval; larger sets get fewer resamples, at least LEAST."""
LEAST = 200


@dataclass(frozen=True)
class AveragePrecisionMeasure:
    """Mean over classes of the average precision of ranking images by the class's score."""

    names: Sequence[str]
    seed: int = 0

    @property
    def top_p(self) -> int:
        return len(self.names)

    def rows(self, predictions: pa.Table, truth: Truth, sidecar: Sidecar | None = None) -> pa.Table:  # noqa: ARG002
        """Columns shard, row, `truth` (list of true classes) and `scores` (float16 log-odds of all classes, in class order)."""
        ordered = predictions.take(pa.array(np.argsort(addresses(predictions), kind="stable")))
        if (stored := classes_of(ordered).shape[1]) != len(self.names):
            raise ValueError(
                f"several labels per image are scored over all {len(self.names)} classes, and these predictions hold {stored}:"
                f" predict with top_p={len(self.names)}"
            )
        scores = np.empty(classes_of(ordered).shape, np.float16)
        np.put_along_axis(scores, classes_of(ordered).astype(np.int64), scores_of(ordered), axis=1)
        lists = targets.from_sets(truth.of(ordered))
        columns = [
            ordered["shard"],
            ordered["row"],
            lists.classes,
            pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), len(self.names)),
        ]
        return pa.table(columns, names=["shard", "row", "truth", "scores"])

    def score(self, rows: pa.Table, unreadable: int = 0) -> Score:
        check_scored(rows, unreadable)
        truth, scores = self._arrays(rows)
        ranked = [AveragePrecision(truth[:, c], scores[:, c]) for c in range(len(self.names))]
        once = np.ones((len(truth), 1), np.int32)
        each = {name: float(ranked[c](once)[0]) for c, name in enumerate(self.names) if truth[:, c].any()}
        if not each:
            raise ValueError("no image has a label: average precision is not defined; check data.label_column")
        resamples = self._resamples(len(truth))
        mean = bootstrap(
            lambda w: mean_over_known([one(w) for one in ranked]), len(truth), resamples=resamples, seed=self.seed
        )
        chance, seen = probability(scores), truth.any(axis=0)
        predicted = chance > DECISION
        macro = bootstrap(
            lambda w: np.nan_to_num(f1_per_class(truth[:, seen], predicted[:, seen], w)).mean(axis=0),
            len(truth),
            seed=self.seed,
        )
        return Score(
            "mean_average_precision",
            mean.value,
            mean.low,
            mean.high,
            images=len(truth),
            unreadable=unreadable,
            per_class=each,
            calibration=expected_calibration_error(chance.ravel(), truth.ravel()),
            details={"macro_f1": [macro.value, macro.low, macro.high], "resamples": resamples},
        )

    def paired(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> PairedTest:
        """Permutation test: the answers of the two models are exchanged on random images. The interval is a paired bootstrap over images."""
        before, after = shared_rows(first, second)
        truth, old = self._arrays(before)
        _, new = self._arrays(after)
        images, resamples = len(truth), self._resamples(2 * len(truth))
        # both models' answers are ranked once, together; weight 0 takes one out of a resample
        together = [
            AveragePrecision(np.tile(truth[:, c], 2), np.concatenate([old[:, c], new[:, c]]))
            for c in range(len(self.names))
        ]

        def mean(of_old: Weights, of_new: Weights) -> Floats:
            return mean_over_known([one(np.concatenate([of_old, of_new])) for one in together])

        def difference(weights: Weights) -> Floats:
            nothing = np.zeros_like(weights)
            return mean(nothing, weights) - mean(weights, nothing)

        def exchanged(flipped: npt.NDArray[np.bool_]) -> Floats:
            stay = (~flipped).astype(np.int32)
            return mean(1 - stay, stay) - mean(stay, 1 - stay)

        interval = bootstrap(difference, images, resamples=resamples, seed=self.seed, level=1 - level)
        p_value = permutation_p_value(exchanged, images, resamples, self.seed)
        return PairedTest(interval, p_value, images, level)

    def overconfidence(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> Interval | None:
        """Of decisions at probability DECISION, averaged over the classes of an image."""
        gaps = []
        for rows in shared_rows(first, second):
            truth, scores = self._arrays(rows)
            chance = probability(scores)
            gaps.append((np.maximum(chance, 1 - chance) - ((chance > DECISION) == truth)).mean(axis=1))
        return normal_interval(gaps[1] - gaps[0], 1 - level)

    def _resamples(self, images: int) -> int:
        return int(np.clip(WORK / max(1, images * len(self.names)), LEAST, RESAMPLES))

    def _arrays(self, rows: pa.Table) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]:
        """Truth bool (N, C) and scores float16 (N, C)."""
        lists = rows["truth"].combine_chunks()
        truth = np.zeros((rows.num_rows, len(self.names)), bool)
        lengths = np.asarray(pc.list_value_length(lists)).astype(np.int64)
        truth[np.repeat(np.arange(rows.num_rows), lengths), np.asarray(lists.flatten()).astype(np.int64)] = True
        scores = np.asarray(rows["scores"].combine_chunks().flatten()).reshape(rows.num_rows, len(self.names))
        return truth, scores


@dataclass(frozen=True)
class Multilabel:
    """Any number of classes per image, none among them."""

    classes: ClassList
    name: str = "multilabel"
    target_kind: TargetKind = "labels"
    merges_picks: bool = True

    @classmethod
    def of(cls, collection: Collection, classes: list[str] | None = None) -> Self:
        seen = {
            name for text in collection.label_names for name in split(pa.chunked_array([[text]])).values.to_pylist()
        }
        return cls(known_classes(sorted(seen), classes))

    @staticmethod
    def check(settings: RunSettings) -> None:
        selects = [settings.selection(number) for number in range(1, len(settings.schedule or []) + 1)] or [
            settings.select
        ]
        for one in selects:
            check_several_labels(one)
        if settings.predict.calibrate:
            raise SettingsError("predict.calibrate fits the temperature of a softmax: leave it out for task=multilabel")

    def predict_settings(self, settings: PredictSettings) -> PredictSettings:
        return settings.model_copy(update={"activation": "sigmoid"})

    @property
    def digest(self) -> str:
        return f"{self.name}-{self.classes.hash}"

    def truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        """bool (N, C). Raises ValueError for an unknown name."""
        return self._truth_of(collection.manifest.labels(shards), collection.name)

    def knows(self, label: str) -> bool:
        names = split(pa.chunked_array([[label]])).values.to_pylist()
        return all(name in self.classes for name in names)

    def known_truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        known = [name for name in collection.label_names if self.knows(name)]
        return self._truth_of(labelled_with(collection, known, shards), collection.name)

    def _truth_of(self, labels: pa.Table, name: str) -> Truth:
        """bool (N, C) of rows of shard, row, label."""
        lists = split(labels["label"])
        index = self.classes.indices(lists.values, name)
        values = np.zeros((labels.num_rows, len(self.classes)), bool)
        values[np.repeat(np.arange(labels.num_rows), np.asarray(lists.value_lengths())), index] = True
        return Truth(labels.select(["shard", "row"]), values)

    def true_targets(self, truth: Truth) -> pa.Table:
        """Every true class with weight 1; the others are known to be absent."""
        return targets_table(truth, targets.from_sets(truth.values))

    def class_counts(self, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return values.sum(axis=0, dtype=np.int64)

    def pseudo_targets(self, picks: pa.Table) -> pa.Table:
        """Every class for which an image was chosen with weight 1; the classes below their cuts count as absent."""
        order = np.argsort(addresses(picks), kind="stable")
        ordered = picks.take(pa.array(order))
        _, first, row = np.unique(addresses(ordered), return_index=True, return_inverse=True)
        lists = ordered["classes"].combine_chunks()
        image = np.repeat(row, np.asarray(lists.value_lengths()))
        truth = np.unique(image * len(self.classes) + np.asarray(lists.flatten()).astype(np.int64))
        image, classes = truth // len(self.classes), truth % len(self.classes)
        made = targets.from_flat(
            np.bincount(image, minlength=len(first)), classes, np.ones(len(classes)), len(self.classes)
        )
        count = np.zeros(len(first), np.int32)
        np.maximum.at(count, row, ordered["count"].to_numpy())
        images = ordered.take(pa.array(first))
        columns = [images["shard"], images["row"], made.classes, made.weights, pa.array(count)]
        return pa.table(columns, names=["shard", "row", "classes", "weights", "count"])

    def correct(self, pseudo: pa.Table, truth: Truth) -> npt.NDArray[np.bool_]:
        values = truth.of(pseudo)
        right: npt.NDArray[np.bool_] = values[np.arange(len(values)), pseudo["class"].to_numpy().astype(np.int64)]
        return right

    @property
    def answers(self) -> ClassAnswers:
        return ClassAnswers()

    def predicted_masks(self, predictions: Output, store: Store, least: float) -> None:
        """A student learns classes of whole images."""

    @property
    def measure(self) -> AveragePrecisionMeasure:
        return AveragePrecisionMeasure(self.classes.names)


def split(column: pa.ChunkedArray) -> pa.ListArray:
    """The names in each text of a column, without empty ones."""
    text = pc.utf8_trim_whitespace(pc.fill_null(column, "")).combine_chunks()
    lists = pc.split_pattern_regex(text, SEPARATORS)
    lengths = np.asarray(pc.list_value_length(lists)).astype(np.int64)
    names = lists.flatten()
    kept = np.asarray(pc.not_equal(names, "").cast(pa.int8())).astype(bool)
    row = np.repeat(np.arange(len(text)), lengths)[kept]
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(text)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), names.filter(pa.array(kept)))
