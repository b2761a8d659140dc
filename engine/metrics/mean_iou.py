"""Intersection over union of classes of pixels, from confusion matrices that add up over images."""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def pixel_confusion(
    truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8], num_classes: int, ignore: int
) -> Counts:
    """Pixels (C, C) of each true class (rows) and predicted class (columns); those whose true class is `ignore` do not count."""
    known = truth != ignore
    pairs = truth[known].astype(np.int64) * num_classes + predicted[known]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(confusion: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """IoU (..., C) of confusion matrices (..., C, C): true positives over true, predicted or both; NaN for a class that is in neither."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    either = confusion.sum(-1) + confusion.sum(-2) - right
    return np.divide(right, either, out=np.full(right.shape, np.nan), where=either > 0)


def mean_iou(confusion: npt.NDArray[np.integer], classes: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mean of `class_iou` over the `classes` (C,) that count, (...). A class that a resample does not contain is left out of its mean."""
    return np.nanmean(np.where(classes, class_iou(confusion), np.nan), axis=-1)
