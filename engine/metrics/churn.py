"""How much two generations' labels differ."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class Churn:
    """What happened to the pseudo-labels between two tables; counts of images."""

    both: int
    """Images in both tables."""
    changed: int
    """Of those, images whose class changed."""
    gained: int
    lost: int

    @property
    def rate(self) -> float:
        """Share of the images in both whose class changed; NaN when there is none."""
        return self.changed / self.both if self.both else float("nan")

    @property
    def jaccard(self) -> float:
        """Images in both over images in either: how far the selection is the same set."""
        either = self.both + self.gained + self.lost
        return self.both / either if either else 1.0

    def __add__(self, other: "Churn") -> "Churn":
        """That of the images of both, which have none in common."""
        return Churn(
            self.both + other.both, self.changed + other.changed, self.gained + other.gained, self.lost + other.lost
        )


def churn(before: pa.Table, after: pa.Table) -> Churn:
    """Compare two label tables with columns `shard`, `row`, `class`.

    An image kept for several classes counts with the class of its highest score.
    """
    (old, old_class), (new, new_class) = _labels(before), _labels(after)
    _, in_old, in_new = np.intersect1d(old, new, assume_unique=True, return_indices=True)
    changed = int((old_class[in_old] != new_class[in_new]).sum())
    return Churn(len(in_old), changed, len(new) - len(in_new), len(old) - len(in_old))


def _labels(table: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct addresses and the class of each: the one with the highest score where there are several."""
    address = (np.asarray(table["shard"]).astype(np.int64) << 32) | np.asarray(table["row"])
    classes = np.asarray(table["class"]).astype(np.int64)
    if "score" in table.column_names:
        best_first = np.lexsort((classes, -np.asarray(table["score"]).astype(np.float64)))
        address, classes = address[best_first], classes[best_first]
    distinct, first = np.unique(address, return_index=True)
    return distinct, classes[first]
