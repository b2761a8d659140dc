"""Which class is taken for which."""

import numpy as np
import numpy.typing as npt


def confusion(
    predicted: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], num_classes: int
) -> npt.NDArray[np.int64]:
    """Counts (C, C): row is the truth, column the prediction. Mergeable by addition."""
    place = truth.astype(np.int64) * num_classes + predicted
    return np.bincount(place, minlength=num_classes**2).reshape(num_classes, num_classes)


def recall(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Per class the share of its images that were recognised; NaN for a class without images."""
    return _share(np.diag(counts), counts.sum(axis=1))


def precision(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Per class the share of its predictions that were right; NaN for a class never predicted."""
    return _share(np.diag(counts), counts.sum(axis=0))


def worst_pairs(counts: npt.NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes, as (truth, predicted, count), at most `limit`."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    pairs = ((*divmod(int(place), len(counts)), int(wrong.flat[place])) for place in order)
    return [pair for pair in pairs if pair[2] > 0]


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
