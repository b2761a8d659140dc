"""True labels mix_dense into the predictions of a teacher: a · y + (1 - a) · f, the target of self-distillation with true labels (arXiv 2102.13088).

With a = 0 each generation learns from the previous one alone; for kernel regression f_t = (K(K + λ)⁻¹)^(t+1) y, which shrinks to zero.
With a > 0 the generations converge to the solution of one fit with λ/a (section 3 of the paper).
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.labels.targets import Targets, hard, ragged
from engine.tables import schema

Array = TypeVar("Array", bound=npt.NDArray[Any])


def mix_dense(truth: Array, prediction: Array, truth_share: float) -> Array:
    """The mixture of two dense arrays of the same shape."""
    return truth_share * truth + (1 - truth_share) * prediction  # type: ignore[return-value]


def mix_targets(predicted: Targets, truth: npt.NDArray[np.integer], truth_share: float, num_classes: int) -> Targets:
    """The mixture of sparse targets: `truth` (n,) class indices, `predicted` n lists of the same length P.

    A true class that the prediction does not list gets an additional entry with its part of the residual mass, so that no mass moves between the
    other classes. With `truth_share` = 1 the targets are hard labels, also for label smoothing.
    """
    if truth_share == 1:
        return hard(truth, num_classes)
    length = len(truth)
    classes = np.asarray(predicted.classes.flatten()).astype(np.int64).reshape(length, -1)
    weights = np.asarray(predicted.weights.flatten()).astype(np.float64).reshape(length, -1)
    width = classes.shape[1]
    residual = np.clip(1 - weights.sum(axis=1), 0, None) / max(1, num_classes - width)
    is_true = classes == truth[:, None]
    weights = mix_dense(is_true.astype(np.float64), weights, truth_share)
    extra = mix_dense(np.ones(length), residual, truth_share)
    keep = np.ones((length, width + 1), bool)
    keep[:, width] = ~is_true.any(axis=1) & (extra > 0)
    return ragged(np.c_[classes, truth], np.c_[weights, extra], keep, num_classes)


def mix_table(pseudo: pa.Table, truth: npt.NDArray[np.integer], truth_share: float, num_classes: int) -> pa.Table:
    """A table with targets (schema.pseudo_labels), mix_dense with the true classes `truth` (n,) of its images."""
    predicted = Targets(pseudo["classes"].combine_chunks(), pseudo["weights"].combine_chunks())
    targets = mix_targets(predicted, truth, truth_share, num_classes)
    for name, column in targets._asdict().items():
        pseudo = schema.with_column(pseudo, name, column)
    return pseudo
