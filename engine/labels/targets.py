"""Sparse targets, and their conversion from and to dense arrays.

A target is two lists, `classes` and `weights`: a hard label has one entry of 1, k tags have k entries of 1/k, a soft label has its top entries.
One minus the sum of the weights is the *residual mass*; it is spread evenly over the classes that are not listed, so that truncating a distribution
does not sharpen it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.tables import schema

SLACK = 1e-3
"""Tolerance of the sum of weights above 1: float16 scores and float32 weights round."""


class Targets(NamedTuple):
    """N targets: `classes` list<uint16 or uint32>, `weights` list<float32>, entry by entry."""

    classes: pa.ListArray
    weights: pa.ListArray


def hard(labels: npt.NDArray[np.integer], num_classes: int) -> Targets:
    """Hard labels: `labels` (N,) class indices."""
    return _lists(np.arange(len(labels) + 1), labels, np.ones(len(labels)), num_classes)


def tags(labels: Sequence[Sequence[int]], num_classes: int) -> Targets:
    """Tags: k entries of 1/k for an image with k tags. Raises ValueError for an image without tags."""
    lengths = np.array([len(row) for row in labels], dtype=np.int64)
    if (lengths == 0).any():
        raise ValueError(f"row {int(np.argmin(lengths))} has no tag")
    flat = np.array([label for row in labels for label in row], dtype=np.int64)
    return _lists(np.concatenate([[0], np.cumsum(lengths)]), flat, np.repeat(1 / lengths, lengths), num_classes)


def sparse(classes: npt.NDArray[np.integer], weights: npt.NDArray[np.floating], num_classes: int) -> Targets:
    """Targets with P entries per image: `classes` and `weights` are (N, P)."""
    rows, width = classes.shape
    return _lists(np.arange(rows + 1) * width, classes.reshape(-1), weights.reshape(-1), num_classes)


def ragged(
    classes: npt.NDArray[np.integer], weights: npt.NDArray[np.floating], keep: npt.NDArray[np.bool_], num_classes: int
) -> Targets:
    """Targets from the entries of `classes` and `weights`, both (N, P), where the mask `keep` (N, P) is true."""
    ends = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    return _lists(ends, classes[keep], weights[keep], num_classes)


def from_flat(
    lengths: npt.NDArray[np.integer],
    classes: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating],
    num_classes: int,
) -> Targets:
    """Targets with `lengths` (N,) entries each, concatenated in `classes` and `weights`."""
    return _lists(np.concatenate([[0], np.cumsum(lengths)]), classes, weights, num_classes)


def from_sets(truth: npt.NDArray[np.bool_]) -> Targets:
    """Several true classes per image, any number of them: `truth` (N, C), an entry of weight 1 for each."""
    row, classes = np.nonzero(truth)
    return from_flat(np.bincount(row, minlength=len(truth)), classes, np.ones(len(row)), truth.shape[1])


def top(dense_targets: npt.NDArray[np.floating], m: int) -> Targets:
    """The m classes of the largest weights in each row of `dense_targets` (N, C), ties by index; the rest becomes residual mass."""
    order = np.argsort(-dense_targets, axis=1, kind="stable")[:, :m]
    return sparse(order, np.take_along_axis(dense_targets, order, axis=1), dense_targets.shape[1])


def dense(targets: Targets, num_classes: int) -> npt.NDArray[np.float32]:
    """Targets as float32 (N, C), the residual mass spread evenly over the classes that are not listed."""
    row, classes, weights, _ = _entries(targets)
    num_rows = len(targets.classes)
    place = row * num_classes + classes
    flat = np.bincount(place, weights, minlength=num_rows * num_classes)
    filled = flat.reshape(num_rows, num_classes)
    listed = np.zeros((num_rows, num_classes), dtype=bool)
    listed[row, classes] = True
    free = num_classes - listed.sum(axis=1)
    residual = np.clip(1 - filled.sum(axis=1), 0, None) / np.maximum(free, 1)
    return np.where(listed, filled, residual[:, None]).astype(np.float32)


def padded(targets: Targets, width: int | None = None) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Targets as classes int64 and weights float32, both (N, W).

    Lists are padded with class 0 of weight 0. `width`: W (default: length of the longest list). Raises ValueError for a longer list.
    """
    row, classes, weights, lengths = _entries(targets)
    longest = int(lengths.max(initial=1))
    width = longest if width is None else width
    if longest > width:
        raise ValueError(f"row {int(np.argmax(lengths))} has {longest} target entries, at most {width} fit")
    within = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    out_classes = np.zeros((len(lengths), width), dtype=np.int64)
    out_weights = np.zeros((len(lengths), width), dtype=np.float32)
    out_classes[row, within] = classes
    out_weights[row, within] = weights
    return out_classes, out_weights


def check(targets: Targets, num_classes: int, where: str) -> None:
    """Raise ValueError naming `where` and the row unless lists match, classes exist and weights sum to at most 1."""
    lengths = np.diff(np.asarray(targets.classes.offsets))
    if not np.array_equal(lengths, np.diff(np.asarray(targets.weights.offsets))):
        raise ValueError(f"{where}: lists of classes and of weights differ in length")
    row, classes, weights, _ = _entries(targets)
    if (classes >= num_classes).any():
        first = int(np.argmax(classes >= num_classes))
        raise ValueError(f"{where}: row {row[first]} has class {classes[first]} of {num_classes} classes")
    if not (weights >= 0).all():  # NaN fails too
        raise ValueError(
            f"{where}: row {row[int(np.argmin(weights >= 0))]} has a weight that is negative or not a number"
        )
    total = np.bincount(row, weights, minlength=len(lengths))
    if (total > 1 + SLACK).any():
        worst = int(np.argmax(total))
        raise ValueError(f"{where}: row {worst} has weights that sum to {total[worst]:.4f}, more than 1")


def _entries(
    targets: Targets,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Row, class and weight of each entry, and the number of entries per row."""
    lengths = np.diff(np.asarray(targets.classes.offsets)).astype(np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    classes = np.asarray(targets.classes.flatten()).astype(np.int64)
    weights = np.asarray(targets.weights.flatten()).astype(np.float64)
    return row, classes, weights, lengths


def _lists(offsets: npt.NDArray, classes: npt.NDArray, weights: npt.NDArray, num_classes: int) -> Targets:
    """Arrow lists from flat entries. Raises ValueError above 2^31 - 1 entries, the limit of int32 offsets."""
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(
            f"{offsets[-1]} target entries exceed the limit of an Arrow list array (2^31 - 1). Build them in parts."
        )
    ends = pa.array(offsets.astype(np.int32))
    index = pa.array(np.ascontiguousarray(classes, dtype=schema.class_dtype(num_classes)))
    return Targets(
        pa.ListArray.from_arrays(ends, index),
        pa.ListArray.from_arrays(ends, pa.array(np.ascontiguousarray(weights, dtype=np.float32))),
    )
