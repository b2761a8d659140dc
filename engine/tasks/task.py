"""The protocol of a task, and the values that it hands to the verbs. Guard, comparison, search and reports know `Score` and `PairedTest` only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.ground.encodings import composed
from engine.ground.steps import Output, Store
from engine.images.collection import Collection
from engine.images.masks import Masks
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.labels.soft_tables import TargetKind
from engine.metrics.interval import Interval
from engine.metrics.paired import PairedTest
from engine.metrics.score import Score
from engine.select.addresses import addresses
from engine.settings.predict import PredictSettings
from engine.settings.run import RunSettings
from engine.tasks.answers import Answers


@dataclass(frozen=True, eq=False)
class Truth:
    """The true labels of a labelled collection: `images` has the columns `shard` and `row`, ascending; `values[i]` belongs to image i."""

    images: pa.Table
    values: npt.NDArray[Any]
    """classify: class indices int64 (N,); multilabel: bool (N, C); another task: what its own measure reads."""

    def __len__(self) -> int:
        return self.images.num_rows

    @cached_property
    def _addresses(self) -> npt.NDArray[np.int64]:
        return addresses(self.images)

    def holds(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which images of a table with `shard` and `row` have a true label, bool (N,)."""
        return np.isin(addresses(table), self._addresses)

    def within(self, scope: Scope) -> npt.NDArray[Any]:
        """The labels of the images that a scope reads."""
        if scope.chosen is None:
            return self.values
        return self.values[scope.chosen.holds(self.images["shard"].to_numpy(), self.images["row"].to_numpy())]

    def of(self, table: pa.Table) -> npt.NDArray[Any]:
        """The labels of the images of a table with `shard` and `row`. Raises ValueError for an image that has none."""
        wanted = addresses(table)
        place = np.searchsorted(self._addresses, wanted)
        found = place < len(self._addresses)
        found[found] = self._addresses[place[found]] == wanted[found]
        if not found.all():
            first = int(np.argmin(found))
            raise ValueError(
                f"{int((~found).sum())} images have no true label, first shard {wanted[first] >> 32} row {wanted[first] & 0xFFFFFFFF}"
            )
        return self.values[place]


Sidecar: TypeAlias = Callable[[str, int], pa.Table]
"""The sidecar of predictions in a folder, of a shard."""


class Measure(Protocol):
    """How answers are scored against the truth: one row per image, so that any two models can be compared on the images that both answered."""

    @property
    def top_p(self) -> int:
        """Classes per image that the predictions must hold."""

    def rows(self, predictions: pa.Table, truth: Truth, sidecar: Sidecar | None = None) -> pa.Table:
        """One row per predicted image, sorted by `shard` and `row`, with what `score` and `paired` need of it. `sidecar`: what was stored beside the
        predictions.
        """

    def score(self, rows: pa.Table, unreadable: int = 0) -> Score:
        """The score of N rows. `unreadable`: labelled images without an answer. Raises ValueError when there is no row."""

    def paired(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> PairedTest:
        """The score of the second model minus that of the first, on images that have a row in both. Raises ValueError when there is none."""

    def overconfidence(self, first: pa.Table, second: pa.Table, level: float = 0.05) -> Interval | None:
        """How much more the second model's confidence exceeds its rate of correct answers, interval at 1 - level; None where it is not defined."""


class Task(Protocol):
    """What a run learns to predict of an image."""

    def __init__(self, classes: ClassList) -> None: ...

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> ClassList: ...

    @property
    def target_kind(self) -> TargetKind:
        """What training targets are."""

    @staticmethod
    def check(settings: RunSettings) -> None:
        """Raise SettingsError for settings that mean nothing for this task."""

    def predict_settings(self, settings: PredictSettings) -> PredictSettings:
        """The settings that this task's predictions need."""

    @classmethod
    def of(cls, collection: Collection, classes: list[str] | None = None) -> Self:
        """The task of a labelled collection: `classes` as given, else those that occur. Raises ValueError for a class without an image."""

    @property
    def digest(self) -> str:
        """Names the task and its classes in the inputs of a step."""

    def truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        """The true labels of a collection, or of some of its shards. Raises ValueError for an image without a label or with an unknown one."""

    def knows(self, label: str) -> bool:
        """Whether a label of a collection says which of the classes an image has. Labels of a pool may say something else: a folder, a caption."""

    def known_truth(self, collection: Collection, shards: Sequence[int] | None = None) -> Truth:
        """The true labels of those images of a collection, or of some of its shards, whose labels the task `knows`."""

    def class_counts(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Images of each class (C,) among true labels, `Truth.values` or some rows of it."""

    def true_targets(self, truth: Truth) -> pa.Table | None:
        """The truth as training targets, the columns of schema.targets; None for one class of weight 1 per image."""

    @property
    def merges_picks(self) -> bool:
        """Whether the rows that a selection has of one image become one target, by `pseudo_targets`; else each row is one."""

    def pseudo_targets(self, picks: pa.Table) -> pa.Table:
        """What a student learns of a selection (rows of shard, row, classes, weights, count), one row per image."""

    def correct(self, pseudo: pa.Table, truth: Truth) -> npt.NDArray[np.bool_]:
        """Whether each pseudo-label (rows of shard, row, class) is right."""

    @property
    def answers(self) -> Answers:
        """What is kept of the network's outputs."""

    def predicted_masks(self, predictions: Output, store: Store, least: float) -> Masks | None:
        """The pixels that a student learns of the images of a selection from `predictions`, those below probability `least` ignored; None for a task
        of whole images.
        """

    @property
    def measure(self) -> Measure: ...


def shared_rows(first: pa.Table, second: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of both tables for the images that both have, in the same order. Raises ValueError when there is none."""
    _, here, there = np.intersect1d(addresses(first), addresses(second), assume_unique=True, return_indices=True)
    if not len(here):
        raise ValueError(f"the models have no image in common: {first.num_rows} and {second.num_rows} rows")
    return first.take(pa.array(here)), second.take(pa.array(there))


def check_scored(rows: pa.Table, unreadable: int) -> None:
    """Raise ValueError when a score has no row to stand on."""
    if not rows.num_rows:
        raise ValueError(
            f"no image could be scored: {unreadable} labelled images are unreadable; check the collection, its quarantine lists the reasons"
        )


def labelled_with(collection: Collection, labels: list[str], shards: Sequence[int] | None = None) -> pa.Table:
    """Rows of shard, row, label of the images whose label is one of `labels`."""
    table = collection.manifest.labels(shards)
    return table.filter(pc.is_in(table["label"], value_set=pa.array(labels, pa.string())))


def known_classes(seen: list[str], classes: list[str] | None) -> ClassList:
    """The class list of a run: as given, else the sorted names seen. Raises ValueError when nothing is labelled, or for a class without an image."""
    if not seen:
        raise ValueError(
            "labelled: no image has a label; use class folders (class/x.jpg) or name the column with data.label_column"
        )
    found = ClassList(tuple(classes)) if classes else ClassList.from_names(seen)
    names = {composed(name) for name in seen}
    if empty := [name for name in found.names if name not in names]:
        raise ValueError(
            f"labelled: no image for the classes {empty[:10]}; label some or take them out of data.classes"
        )
    return found


def targets_table(truth: Truth, lists: tuple[pa.ListArray, pa.ListArray]) -> pa.Table:
    """`lists` of classes and weights, one entry per image of `truth`, each drawn once: the columns of schema.targets."""
    return pa.table(
        {
            "shard": truth.images["shard"],
            "row": truth.images["row"],
            "classes": lists[0],
            "weights": lists[1],
            "count": pa.array(np.ones(len(truth), np.int32)),
        }
    )
