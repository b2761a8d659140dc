"""Which class is taken for which, from the answers themselves: a matrix of 20,000 classes would not fit into memory."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Classes = npt.NDArray[np.integer]


@dataclass(frozen=True)
class ClassCounts:
    """Images per class (C,) each: of that true class, of that answer, and of both."""

    true: Ints
    answered: Ints
    right: Ints

    @classmethod
    def of(cls, truth: Classes, predicted: Classes, num_classes: int) -> "ClassCounts":
        hit = truth == predicted
        each = (np.bincount(one, minlength=num_classes) for one in (truth, predicted, truth[hit]))
        return cls(*(one.astype(np.int64) for one in each))

    @property
    def recall(self) -> Floats:
        """Share of its images that were recognised (C,); NaN for a class without images."""
        return _share(self.right, self.true)

    @property
    def precision(self) -> Floats:
        """Share of its answers that are right (C,); NaN for a class that was never answered."""
        return _share(self.right, self.answered)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of the two (C,); NaN for a class that is in neither."""
        return _share(2 * self.right, self.true + self.answered)


def worst_pairs(truth: Classes, predicted: Classes, num_classes: int, limit: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes, as (truth, predicted, count), at most `limit`; equally frequent ones in the order of their classes."""
    wrong = truth != predicted
    pairs, counts = np.unique(truth[wrong].astype(np.int64) * num_classes + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [(*divmod(int(pairs[one]), num_classes), int(counts[one])) for one in order]


def _share(part: Ints, whole: Ints) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
