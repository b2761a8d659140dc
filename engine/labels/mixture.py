"""True labels mixed into a teacher's answers: a · y + (1 - a) · f, the target of self-distillation with ground truth (arXiv 2102.13088).

With a = 0 each round learns from the one before alone, and in the kernel picture f_t = (K(K + λ)⁻¹)^(t+1) y: it shrinks until nothing is left.
With a > 0 endless rounds end where one fit with λ/a ends (METHODS §10).
"""

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.labels.targets import Targets, hard, ragged
from engine.tables import schema

Array = TypeVar("Array", bound=npt.NDArray[Any])


def mixed(truth: Array, answer: Array, truth_share: float) -> Array:
    """Dense targets of one shape: any numbers, one-hot rows and distributions among them."""
    return truth_share * truth + (1 - truth_share) * answer  # type: ignore[return-value]


def mix(answers: Targets, truth: npt.NDArray[np.integer], truth_share: float, num_classes: int) -> Targets:
    """`mixed` on sparse targets: `truth` (n,) class indices, `answers` n lists of the same length P.

    A true class that the answer does not list gets an entry of its own, its part of the residual mass with it, so that no mass moves between the
    other classes. With a share of 1 the targets are the hard ones, also for label smoothing.
    """
    if truth_share == 1:
        return hard(truth, num_classes)
    length = len(truth)
    classes = np.asarray(answers.classes.flatten()).astype(np.int64).reshape(length, -1)
    weights = np.asarray(answers.weights.flatten()).astype(np.float64).reshape(length, -1)
    width = classes.shape[1]
    residual = np.clip(1 - weights.sum(axis=1), 0, None) / max(1, num_classes - width)
    is_true = classes == truth[:, None]
    weights = mixed(is_true.astype(np.float64), weights, truth_share)
    apart = mixed(np.ones(length), residual, truth_share)
    keep = np.ones((length, width + 1), bool)
    keep[:, width] = ~is_true.any(axis=1) & (apart > 0)
    return ragged(np.c_[classes, truth], np.c_[weights, apart], keep, num_classes)


def mixed_table(pseudo: pa.Table, truth: npt.NDArray[np.integer], truth_share: float, num_classes: int) -> pa.Table:
    """A table with targets (schema.pseudo_labels) whose images are of the true classes `truth` (n,), its targets mixed with them."""
    answers = Targets(pseudo["classes"].combine_chunks(), pseudo["weights"].combine_chunks())
    targets = mix(answers, truth, truth_share, num_classes)
    for name, column in targets._asdict().items():
        pseudo = schema.with_column(pseudo, name, column)
    return pseudo
