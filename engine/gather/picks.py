"""What is gathered: which images, and what each is to be learned as. Read by the workers, shard by shard."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.gather.arrange import Arranged
from engine.images.masks import Masks
from engine.images.scope import Scope
from engine.labels import targets
from engine.labels.classes import ClassList
from engine.select.addresses import addresses, isin_sorted

Ints = npt.NDArray[np.int64]
COLUMNS = ["shard", "row", "classes", "weights", "count"]


class Picks(Protocol):
    """Images with their targets. Pickles small."""

    def counts(self) -> tuple[Ints, Ints]:
        """Shards (n,) that have picks, ascending, and the number of picks of each."""

    def read(self, shards: Ints) -> pa.Table:
        """The picks of some shards (ascending) with COLUMNS and, where there are masks, `mask`, in address order; an image may have several."""


@dataclass(frozen=True)
class ChosenPicks:
    """A selection, or another table of targets, in the order of its collection."""

    arranged: Arranged
    masks: Masks | None = None

    def counts(self) -> tuple[Ints, Ints]:
        return self.arranged.counts()

    def read(self, shards: Ints) -> pa.Table:
        picked = self.arranged.read(shards).select(COLUMNS)
        return picked if self.masks is None else with_masks(picked, self.masks.read(shards.tolist()))


def with_masks(picked: pa.Table, masks: pa.Table) -> pa.Table:
    """`picked` with the column `mask` of its images. Raises ValueError for an image that has none."""
    wanted, known = addresses(picked), addresses(masks)
    if missing := int((~isin_sorted(wanted, known)).sum()):
        raise ValueError(f"{missing} picked images have no mask: predict and select them again")
    return picked.append_column("mask", masks["mask"].take(pa.array(np.searchsorted(known, wanted))))


@dataclass(frozen=True)
class TruePicks:
    """The images of a labelled scope, each with its true class at weight 1."""

    scope: Scope
    classes: ClassList

    def counts(self) -> tuple[Ints, Ints]:
        if self.scope.chosen is not None:
            shards, rows = np.unique(self.scope.chosen.addresses >> 32, return_counts=True)
            return shards, rows.astype(np.int64)
        rows = self.scope.manifest.rows.astype(np.int64)
        return np.flatnonzero(rows), rows[rows > 0]

    def read(self, shards: Ints) -> pa.Table:
        """Raises ValueError for an image without a label, or with one that is not a class."""
        labels = self.scope.manifest.labels(shards.tolist())
        if self.scope.chosen is not None:
            mine = self.scope.chosen.holds(labels["shard"].to_numpy(), labels["row"].to_numpy())
            labels = labels.filter(pa.array(mine))
        index = self.classes.indices(labels["label"], self.scope.name)
        if (index < 0).any():
            raise ValueError(f"{self.scope.name}: {int((index < 0).sum())} images of shards {shards[:5]} have no label")
        made = targets.hard(index, len(self.classes))
        count = pa.array(np.ones(len(index), np.int32))
        return pa.table([labels["shard"], labels["row"], made.classes, made.weights, count], names=COLUMNS)
