"""One class per pixel: mean intersection over union with a bootstrap interval over images, and a sign-flip test of two models.

Absent classes: the mean is over the classes that the labelled set contains. Masks are compared in the square that the network sees.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.ground.steps import Output, Store, read_sidecar
from engine.images.collection import Collection
from engine.images.decode import Frame, decode_mask, decode_mask_full_size
from engine.images.masks import Masks
from engine.labels import targets
from engine.labels.classes import ClassList
from engine.labels.soft_tables import TargetKind
from engine.metrics.interval import Interval
from engine.metrics.mean_iou import class_iou, mean_iou, pixel_confusion
from engine.metrics.paired import PairedTest
from engine.metrics.resampling import Floats, Weights, bootstrap, permutation_p_value
from engine.metrics.score import Score
from engine.select.addresses import addresses
from engine.settings.block import SettingsError
from engine.settings.predict import PredictSettings
from engine.settings.run import RunSettings
from engine.tables.schema import IGNORE
from engine.tasks.mask_answers import FOLDER, MaskAnswers, png
from engine.tasks.task import Sidecar, Truth, check_scored, shared_rows, targets_table

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MeanIoUMeasure:
    """Mean over the classes of the intersection over union of all images' pixels together."""

    names: Sequence[str]
    top_p: int = 1
    seed: int = 0

    def rows(self, predictions: pa.Table, truth: Truth, sidecar: Sidecar | None = None) -> pa.Table:
        """Columns shard, row and `confusion` (list of C x C pixels, true class by predicted class)."""
        assert sidecar is not None, "masks are stored in a sidecar"
        ordered = predictions.take(pa.array(np.argsort(addresses(predictions), kind="stable")))
        true_masks = truth.of(ordered)
        shards, rows = (ordered[name].to_numpy() for name in ("shard", "row"))
        confusions = np.empty((len(rows), len(self.names) ** 2), np.int32)
        for shard in np.unique(shards):
            stored = sidecar(FOLDER, int(shard))
            masks = dict(zip(stored["row"].to_pylist(), stored["mask"].to_pylist(), strict=True))
            for place in np.flatnonzero(shards == shard):
                predicted = decode_mask_full_size(masks[int(rows[place])])
                right = decode_mask(true_masks[place], Frame(len(predicted)))[0].numpy()
                confusions[place] = pixel_confusion(right, predicted, len(self.names), IGNORE).ravel()
        column = pa.FixedSizeListArray.from_arrays(pa.array(confusions.ravel()), len(self.names) ** 2)
        return pa.table([ordered["shard"], ordered["row"], column], names=["shard", "row", "confusion"])

    def score(self, rows: pa.Table, unreadable: int = 0) -> Score:
        check_scored(rows, unreadable)
        confusion = self._confusions(rows)
        total = confusion.sum(axis=0)
        seen = total.sum(axis=1) > 0
        if not seen.any():
            raise ValueError(
                f"no pixel of {len(confusion)} masks has a class: all are ignored ({IGNORE}); check data.masks"
            )
        mean = bootstrap(lambda weights: self._mean(confusion, weights, seen), len(confusion), seed=self.seed)
        each = class_iou(total)
        return Score(
            "mean_iou",
            mean.value,
            mean.low,
            mean.high,
            images=len(confusion),
            unreadable=unreadable,
            per_class={name: float(each[c]) for c, name in enumerate(self.names) if seen[c]},
            details={"pixel_accuracy": float(np.trace(total) / total.sum())},
        )

    def paired(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> PairedTest:
        """Permutation test: the masks of the two models are exchanged on random images. The interval is a paired bootstrap over images."""
        old, new = (self._confusions(rows) for rows in shared_rows(first, second))
        seen = old.sum(axis=(0, 2)) > 0

        def difference(weights: Weights) -> Floats:
            return self._mean(new, weights, seen) - self._mean(old, weights, seen)

        def exchanged(flipped: npt.NDArray[np.bool_]) -> Floats:
            gone, stay = flipped.astype(np.int32), (~flipped).astype(np.int32)
            sums = [summed(new, stay) + summed(old, gone), summed(old, stay) + summed(new, gone)]
            after, before = (mean_iou(one, seen) for one in sums)
            return after - before

        interval = bootstrap(difference, len(old), seed=self.seed, level=1 - level)
        return PairedTest(interval, permutation_p_value(exchanged, len(old), seed=self.seed), len(old), level)

    def overconfidence(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> Interval | None:  # noqa: ARG002
        """Not defined: the confidence of single pixels is not kept."""
        return None

    def _confusions(self, rows: pa.Table) -> Ints:
        """int64 (N, C, C)."""
        flat = np.asarray(rows["confusion"].combine_chunks().flatten()).astype(np.int64)
        return flat.reshape(rows.num_rows, len(self.names), len(self.names))

    def _mean(self, confusion: Ints, weights: Weights, seen: npt.NDArray[np.bool_]) -> Floats:
        return mean_iou(summed(confusion, weights), seen)


def summed(confusion: Ints, weights: Weights) -> Ints:
    """Confusion matrices (b, C, C) of all images together, each image as often as `weights` (N, b) say."""
    return np.einsum("nij,nb->bij", confusion, weights.astype(np.int64), optimize=True)


@dataclass(frozen=True)
class PredictedMasks:
    """The masks that a prediction pass stored, pixels below probability `least` ignored."""

    predictions: Output
    store: Store
    least: float

    @property
    def digest(self) -> str:
        return f"{self.predictions.digest}-{self.least:g}"

    def read(self, shards: Sequence[int] | None = None) -> pa.Table:
        """Raises StoreError for a sidecar that was changed."""
        tables = []
        for part in self.predictions.parts(self.store.fs):
            if not part.rows or (shards is not None and part.unit not in shards):
                continue
            stored = read_sidecar(self.predictions, self.store.fs, FOLDER, part)
            pairs = zip(stored["mask"].to_pylist(), stored["confidence"].to_pylist(), strict=True)
            masks = [png(confident(*pair, self.least)) for pair in pairs] if self.least else stored["mask"]
            shard = pa.array(np.full(stored.num_rows, part.unit, np.int32))
            tables.append(pa.table([shard, stored["row"], masks], names=["shard", "row", "mask"]))
        return pa.concat_tables(tables)


def confident(mask: bytes, confidence: bytes, least: float) -> npt.NDArray[np.uint8]:
    """A stored mask uint8 (S, S) with IGNORE where the quarter-size confidence is below `least`."""
    values, shares = decode_mask_full_size(mask).copy(), decode_mask_full_size(confidence)
    scale = -(-len(values) // len(shares))
    large = np.kron(shares, np.ones((scale, scale), np.uint8))[: values.shape[0], : values.shape[1]]
    values[large < np.ceil(least * 255)] = IGNORE
    return values


@dataclass(frozen=True)
class Segment:
    """One class per pixel; IGNORE where it is not known."""

    classes: ClassList
    name: str = "segment"
    target_kind: TargetKind = "distribution"
    merges_picks: bool = False

    @classmethod
    def of(cls, collection: Collection, classes: list[str] | None = None) -> Self:
        if collection.masks is None:
            raise ValueError(f"task=segment learns masks: set data.masks.{collection.name}")
        if not classes:
            raise ValueError("task=segment needs the names of the masks' indices, in order: set data.classes")
        return cls(ClassList(tuple(classes)))

    @staticmethod
    def check(settings: RunSettings) -> None:
        for name, model in (("teacher", settings.models.teacher), ("student", settings.models.student)):
            if model is not None and model.decoder is None:
                raise SettingsError(f"task=segment needs a network of pixels: set models.{name}.decoder=unet")
        for name, fit in settings.fits.named().items():
            if name in ("teacher", "student", "finetune") and fit.objective != "segmentation":
                raise SettingsError(f"task=segment learns masks: set fits.{name}.objective=segmentation")
            if any(noise.scale is not None for stream, noise in fit.noise.items() if stream == "pseudo"):
                raise SettingsError(
                    f"fits.{name}.noise.pseudo.scale crops whole pictures, and pseudo-masks are of the square that the teacher saw: leave it out"
                )
        for wanted in ("labelled", *(name for name in ("validation", "test") if getattr(settings.data, name))):
            if wanted not in settings.data.masks:
                raise SettingsError(f"task=segment needs masks of every labelled collection: set data.masks.{wanted}")
        if settings.predict.calibrate:
            raise SettingsError("predict.calibrate fits the temperature of whole images: leave it out for task=segment")
        if settings.select.targets == "soft":
            raise SettingsError(
                "select.targets=soft is a distribution over an image's classes, and task=segment learns masks: set select.targets=hard"
            )

    def predict_settings(self, settings: PredictSettings) -> PredictSettings:
        return settings.model_copy(update={"top_p": 1})

    @property
    def digest(self) -> str:
        return f"segment-{self.classes.hash}"

    def truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        """Encoded masks, object (N,)."""
        if collection.masks is None:
            raise ValueError(f"{collection.name}: no masks are known; set data.masks.{collection.name}")
        table = collection.masks.read(shards)
        return Truth(table.select(["shard", "row"]), np.array(table["mask"].to_pylist(), object))

    def knows(self, label: str) -> bool:  # noqa: ARG002
        """Labels of whole images say nothing of pixels."""
        return False

    def known_truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        """Masks, not labels, are what is learned: nothing of a collection without masks."""
        if collection.masks is None:
            nothing = collection.manifest.keys([]).select(["shard", "row"])
            return Truth(nothing, np.empty(0, object))
        return self.truth(collection, shards)

    def class_counts(self, values: npt.NDArray[np.object_]) -> Ints:
        """Images (C,) in whose masks each class occurs."""
        counts = np.zeros(len(self.classes), np.int64)
        for mask in values:
            found = np.unique(decode_mask_full_size(mask))
            counts[found[found < len(counts)]] += 1
        return counts

    def true_targets(self, truth: Truth) -> pa.Table:
        """Every image once; what it is learned as is its mask."""
        return targets_table(truth, targets.hard(np.zeros(len(truth), np.int64), len(self.classes)))

    def pseudo_targets(self, picks: pa.Table) -> pa.Table:
        return picks

    def correct(self, pseudo: pa.Table, truth: Truth) -> npt.NDArray[np.bool_]:
        """Whether the class of most pixels is right."""
        most = []
        for mask in truth.of(pseudo):
            values = decode_mask_full_size(mask)
            most.append(np.bincount(values[values != IGNORE], minlength=len(self.classes)).argmax())
        right: npt.NDArray[np.bool_] = np.array(most) == pseudo["class"].to_numpy()
        return right

    @property
    def answers(self) -> MaskAnswers:
        return MaskAnswers()

    def predicted_masks(self, predictions: Output, store: Store, least: float) -> Masks:
        return PredictedMasks(predictions, store, least)

    @property
    def measure(self) -> MeanIoUMeasure:
        return MeanIoUMeasure(self.classes.names)
