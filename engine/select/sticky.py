"""scikit-learn's way: a label once accepted never changes.

`Sticky` is the arithmetic of `SelfTrainingClassifier` on unrounded probabilities, round by round, with whatever
trains and scores plugged in between; `carry_over` is the same rule between two tables of pseudo-labels. The other
way, relabelling everything each generation, needs no code of its own.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Stop = Literal["no_change", "max_iter", "all_labeled"]

UNLABELLED = -1


@dataclass
class Sticky:
    """Labels (N,), -1 for unlabelled, growing by what each round accepts.

    That is a probability strictly above `threshold`, or the `k_best` most confident rows.
    """

    labels: npt.NDArray[np.int64]
    threshold: float = 0.75
    k_best: int | None = None
    """When given, it replaces the threshold."""
    max_iter: int | None = 10
    labeled_iter: npt.NDArray[np.int64] = field(init=False)
    """Round in which each label was accepted: 0 for given ones, -1 for none."""
    num_iter: int = field(default=0, init=False)
    stop: Stop | None = field(init=False)
    """Why there is no further round; None while there is one."""

    def __post_init__(self) -> None:
        self.labels = self.labels.copy()
        self.labeled_iter = np.where(self.labelled, 0, -1)
        self.stop = self._reason(added=None)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which rows have a label by now, (N,)."""
        return self.labels != UNLABELLED

    def accept(self, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        """Take in a model's probabilities (M, C) of the M rows without label, in row order; the rows that got one."""
        if self.stop is not None:
            raise ValueError(f"self-training has stopped: {self.stop}")
        self.num_iter += 1
        confidence = probabilities.max(axis=1)
        best = self._best(confidence)
        chosen = np.flatnonzero(~self.labelled)[best]
        self.labels[chosen] = probabilities.argmax(axis=1)[best]
        self.labeled_iter[chosen] = self.num_iter
        self.stop = self._reason(added=len(chosen))
        return chosen

    def _best(self, confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        if self.k_best is None:
            return np.flatnonzero(confidence > self.threshold)
        if self.k_best >= len(confidence):
            return np.arange(len(confidence))
        return np.argpartition(-confidence, self.k_best)[
            : self.k_best
        ]  # scikit-learn's own call, so that ties fall alike

    def _reason(self, added: int | None) -> Stop | None:
        if self.labelled.all():
            return "all_labeled"
        if self.max_iter is not None and self.num_iter >= self.max_iter:
            return "max_iter"
        return "no_change" if added == 0 else None


def carry_over(accepted: pa.Table, fresh: pa.Table) -> pa.Table:
    """Pseudo-labels of earlier generations as they were, plus those of images that had none.

    Sorted by class, the earlier ones ranked first. Both tables are `schema.pseudo_labels`; an image's earlier classes
    and targets stand whatever the new teacher says.
    """
    if not accepted.schema.equals(fresh.schema, check_metadata=True):
        raise ValueError("pseudo-labels of the two generations differ in schema or class list")
    known = np.isin(addresses(fresh), addresses(accepted))
    together = pa.concat_tables([accepted, fresh.filter(pa.array(~known))])
    classes, rank = np.asarray(together["class"]).astype(np.int64), np.asarray(together["rank"])
    generation = np.repeat([0, 1], [len(accepted), len(together) - len(accepted)])
    order = np.lexsort((rank, generation, classes))
    starts = np.searchsorted(classes[order], classes[order])
    table = together.take(pa.array(order)).combine_chunks()
    place = table.schema.get_field_index("rank")
    return table.set_column(
        place, table.schema.field(place), pa.array((np.arange(len(order)) - starts).astype(np.int32))
    )


def addresses(table: pa.Table) -> npt.NDArray[np.int64]:
    """(shard, row) of each row as one int64 (N,)."""
    return (np.asarray(table["shard"]).astype(np.int64) << 32) | np.asarray(table["row"])
