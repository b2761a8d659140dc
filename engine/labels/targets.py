"""The one sparse form of what an image is labelled with, and its way to and from dense arrays.

A target is two lists, `classes` and `weights`: a hard label has one entry of 1, k tags have k entries of 1/k, a soft
label has its top entries. Whatever the weights lack to 1 is the *residual mass*; it is spread evenly over the classes
that are not listed, so that cutting a distribution to its top does not sharpen it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.tables import schema

SLACK = 1e-3
"""How far above 1 a target's weights may sum: float16 scores and float32 weights round."""


class Targets(NamedTuple):
    """N targets: `classes` list<uint16 or uint32>, `weights` list<float32>, entry by entry."""

    classes: pa.ListArray
    weights: pa.ListArray


def hard(labels: npt.NDArray[np.integer], num_classes: int) -> Targets:
    """One class an image: `labels` (N,) class indices."""
    return _lists(np.arange(len(labels) + 1), labels, np.ones(len(labels)), num_classes)


def tags(labels: Sequence[Sequence[int]], num_classes: int) -> Targets:
    """Several equally true classes an image: k entries of 1/k each; an image may not be without a tag."""
    lengths = np.array([len(row) for row in labels], dtype=np.int64)
    if (lengths == 0).any():
        raise ValueError(f"row {int(np.argmin(lengths))} has no tag: an image without tags has no target")
    flat = np.array([label for row in labels for label in row], dtype=np.int64)
    return _lists(np.concatenate([[0], np.cumsum(lengths)]), flat, np.repeat(1 / lengths, lengths), num_classes)


def sparse(classes: npt.NDArray[np.integer], weights: npt.NDArray[np.floating], num_classes: int) -> Targets:
    """The same number of entries for every image: `classes` and `weights` are (N, P)."""
    rows, width = classes.shape
    return _lists(np.arange(rows + 1) * width, classes.reshape(-1), weights.reshape(-1), num_classes)


def ragged(
    classes: npt.NDArray[np.integer], weights: npt.NDArray[np.floating], keep: npt.NDArray[np.bool_], num_classes: int
) -> Targets:
    """The entries of `classes` and `weights`, both (N, P), that `keep` (N, P) marks."""
    ends = np.concatenate([[0], np.cumsum(keep.sum(axis=1))])
    return _lists(ends, classes[keep], weights[keep], num_classes)


def from_flat(
    lengths: npt.NDArray[np.integer],
    classes: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating],
    num_classes: int,
) -> Targets:
    """Targets with `lengths` (N,) entries each, given one after the other."""
    return _lists(np.concatenate([[0], np.cumsum(lengths)]), classes, weights, num_classes)


def from_sets(truth: npt.NDArray[np.bool_]) -> Targets:
    """Several true classes per image, any number of them: `truth` (N, C), an entry of weight 1 for each."""
    row, classes = np.nonzero(truth)
    return from_flat(np.bincount(row, minlength=len(truth)), classes, np.ones(len(row)), truth.shape[1])


def top(dense_targets: npt.NDArray[np.floating], m: int) -> Targets:
    """The m heaviest classes of each row of `dense_targets` (N, C), then by index; the rest is residual mass."""
    order = np.argsort(-dense_targets, axis=1, kind="stable")[:, :m]
    return sparse(order, np.take_along_axis(dense_targets, order, axis=1), dense_targets.shape[1])


def dense(targets: Targets, num_classes: int) -> npt.NDArray[np.float32]:
    """Targets as (N, C) float32, the residual mass spread evenly over the classes that are not listed."""
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
    """Targets as rectangular (N, W) classes and weights, for a loss that gathers.

    Entries beyond a list's end are class 0 with weight 0. `width` is the longest list when not given; a longer list
    is an error, never cut.
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
    """Raise ValueError naming `where` and row unless lists match, classes exist and weights sum to at most 1."""
    lengths = np.diff(np.asarray(targets.classes.offsets))
    if not np.array_equal(lengths, np.diff(np.asarray(targets.weights.offsets))):
        raise ValueError(f"{where}: lists of classes and of weights differ in length")
    row, classes, weights, _ = _entries(targets)
    if (classes >= num_classes).any():
        bad = int(np.argmax(classes >= num_classes))
        raise ValueError(f"{where}: row {row[bad]} names class {classes[bad]}, but there are {num_classes} classes")
    if not (weights >= 0).all():  # NaN fails too
        raise ValueError(
            f"{where}: row {row[int(np.argmin(weights >= 0))]} has a weight that is negative or not a number"
        )
    total = np.bincount(row, weights, minlength=len(lengths))
    if (total > 1 + SLACK).any():
        bad = int(np.argmax(total))
        raise ValueError(f"{where}: row {bad} has weights that sum to {total[bad]:.4f}, more than 1")


def _entries(
    targets: Targets,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Flat entries: row, class, weight of each, and the length of each row's list."""
    lengths = np.diff(np.asarray(targets.classes.offsets)).astype(np.int64)
    row = np.repeat(np.arange(len(lengths)), lengths)
    classes = np.asarray(targets.classes.flatten()).astype(np.int64)
    weights = np.asarray(targets.weights.flatten()).astype(np.float64)
    return row, classes, weights, lengths


def _lists(offsets: npt.NDArray, classes: npt.NDArray, weights: npt.NDArray, num_classes: int) -> Targets:
    """Arrow lists from flat entries; offsets are int32, so one array holds at most 2^31 - 1 entries."""
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"{offsets[-1]} target entries do not fit one Arrow list array: build them in parts")
    ends = pa.array(offsets.astype(np.int32))
    index = pa.array(np.ascontiguousarray(classes, dtype=schema.class_dtype(num_classes)))
    return Targets(
        pa.ListArray.from_arrays(ends, index),
        pa.ListArray.from_arrays(ends, pa.array(np.ascontiguousarray(weights, dtype=np.float32))),
    )
