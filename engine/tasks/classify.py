"""One class per image: accuracy with Wilson's interval, McNemar's test, calibration error of the best class."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.ground.steps import Output, Store
from engine.images.collection import Collection
from engine.labels.classes import ClassList
from engine.labels.soft_tables import TargetKind
from engine.metrics.calibration import calibration_error, gap_change
from engine.metrics.confusion import ClassCounts, worst_pairs
from engine.metrics.interval import Interval, wilson
from engine.metrics.paired import PairedTest, mcnemar
from engine.metrics.score import Score
from engine.select.addresses import addresses
from engine.select.scores import classes_of, probability, scores_of
from engine.settings.predict import PredictSettings
from engine.settings.run import RunSettings
from engine.tasks.answers import ClassAnswers
from engine.tasks.task import Sidecar, Truth, check_scored, known_classes, labelled_with, shared_rows

ROWS = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("truth", pa.int32()),
        ("predicted", pa.int32()),
        ("confidence", pa.float32()),
        ("place", pa.int32()),
    ]
)
"""One answered image: its class, the best class of the model and that one's probability, and the place of the true class among the model's best,
counted from 1; 0 where it is none of them."""
TOP = 5
"""Classes per image among which the true one is looked for, the second figure of ImageNet's papers."""
WORST = 10
"""Pairs of classes that are named as most often confused."""


@dataclass(frozen=True)
class AccuracyMeasure:
    """Share of images whose best class is the true one."""

    names: Sequence[str]

    @property
    def top_p(self) -> int:
        return min(TOP, len(self.names))

    def rows(self, predictions: pa.Table, truth: Truth, sidecar: Sidecar | None = None) -> pa.Table:  # noqa: ARG002
        """ROWS of predictions with at least one class per image."""
        order = np.argsort(addresses(predictions), kind="stable")
        ordered = predictions.take(pa.array(order))
        true, best = truth.of(ordered).astype(np.int32), classes_of(ordered)[:, :TOP]
        hit = best == true[:, None]
        columns = [
            ordered["shard"],
            ordered["row"],
            true,
            best[:, 0].astype(np.int32),
            probability(scores_of(ordered)[:, 0]).astype(np.float32),
            np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0).astype(np.int32),
        ]
        return pa.table(columns, schema=ROWS)

    def score(self, rows: pa.Table, unreadable: int = 0) -> Score:
        check_scored(rows, unreadable)
        truth, right = rows["truth"].to_numpy(), _right(rows)
        low, high = wilson(int(right.sum()), right.size)
        calibrated = calibration_error(rows["confidence"].to_numpy(), right)
        return Score(
            "accuracy",
            float(right.mean()),
            low,
            high,
            images=right.size,
            unreadable=unreadable,
            per_class={
                name: float(right[truth == c].mean()) for c, name in enumerate(self.names) if (truth == c).any()
            },
            calibration=calibrated.error.value,
            details={
                "correct": int(right.sum()),
                "calibration": [calibrated.error.value, calibrated.error.low, calibrated.error.high],
                "calibration_floor": calibrated.floor,
                "brier": calibrated.brier,
                **self._by_class(rows),
            },
        )

    def _by_class(self, rows: pa.Table) -> dict[str, Any]:
        """Secondary figures: top-5 and balanced accuracy with intervals, and per class precision, F1 and who is taken for whom."""
        truth, predicted, number = rows["truth"].to_numpy(), rows["predicted"].to_numpy(), len(self.names)
        counts = ClassCounts.of(truth, predicted, number)
        seen = counts.true > 0
        share = counts.recall[seen]
        # the mean of independent shares, each of true[c] images
        spread = float(np.sqrt((share * (1 - share) / counts.true[seen]).sum()) / seen.sum())
        half = NormalDist().inv_cdf(0.975) * spread
        pairs = worst_pairs(truth, predicted, number, WORST)
        found: dict[str, Any] = {
            "balanced_accuracy": [float(share.mean()), float(share.mean() - half), float(share.mean() + half)],
            "precision": _named(self.names, counts.precision),
            "f1": _named(self.names, counts.f1, seen),
            "confused": [[self.names[true], self.names[answer], count] for true, answer, count in pairs],
        }
        if len(self.names) > TOP:
            hits = int((rows["place"].to_numpy() > 0).sum())
            found["top_5"] = [hits / rows.num_rows, *wilson(hits, rows.num_rows)]
        return found

    def paired(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> PairedTest:
        """McNemar's test."""
        before, after = shared_rows(first, second)
        return mcnemar(_right(before), _right(after), level)

    def overconfidence(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> Interval | None:
        before, after = shared_rows(first, second)
        confidence = [rows["confidence"].to_numpy() for rows in (before, after)]
        return gap_change(confidence[0], _right(before), confidence[1], _right(after), level)


@dataclass(frozen=True)
class Classify:
    """One class per image."""

    classes: ClassList
    name: str = "classify"
    target_kind: TargetKind = "distribution"
    merges_picks: bool = False

    @classmethod
    def of(cls, collection: Collection, classes: list[str] | None = None) -> Self:
        return cls(known_classes(collection.label_names, classes))

    @staticmethod
    def check(settings: RunSettings) -> None:
        """Every setting means something for one class per image."""

    def predict_settings(self, settings: PredictSettings) -> PredictSettings:
        return settings

    @property
    def digest(self) -> str:
        return self.classes.hash

    def truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        images = collection.manifest.labels(shards).select(["shard", "row"])
        return Truth(images, collection.class_indices(self.classes, shards))

    def knows(self, label: str) -> bool:
        return label in self.classes

    def known_truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        rows = labelled_with(collection, [name for name in collection.label_names if self.knows(name)], shards)
        return Truth(rows.select(["shard", "row"]), self.classes.indices(rows["label"], collection.name))

    def class_counts(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(values, minlength=len(self.classes)).astype(np.int64)

    def true_targets(self, truth: Truth) -> None:
        """One class of weight 1 per image."""

    def pseudo_targets(self, picks: pa.Table) -> pa.Table:
        """An image that was chosen for two classes is learned as each of them."""
        return picks

    def correct(self, pseudo: pa.Table, truth: Truth) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = truth.of(pseudo) == pseudo["class"].to_numpy()
        return right

    @property
    def answers(self) -> ClassAnswers:
        return ClassAnswers()

    def predicted_masks(self, predictions: Output, store: Store, least: float) -> None:
        """A student learns classes of whole images."""

    @property
    def measure(self) -> AccuracyMeasure:
        return AccuracyMeasure(self.classes.names)


def _right(rows: pa.Table) -> npt.NDArray[np.bool_]:
    right: npt.NDArray[np.bool_] = rows["truth"].to_numpy() == rows["predicted"].to_numpy()
    return right


def _named(
    names: Sequence[str], values: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """The values (C,) that are defined, of the classes `seen` (default: all), by class name."""
    known = np.isfinite(values) if seen is None else np.isfinite(values) & seen
    return {name: float(values[c]) for c, name in enumerate(names) if known[c]}
