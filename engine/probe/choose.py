"""How strong the penalty of a probe is: chosen on images that it does not learn from, never on the test set."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.probe.logistic import Fitted, cross_entropy, fit_logistic

GRID = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""Values of C that are tried; features have length 1 on average."""
FEWEST = 2
"""Images of a class from which some can be held out."""
ONE_EACH = 1.0
"""C where a class has a single image, so that nothing can be held out: scikit-learn's default, nearly the prototypes' classes."""
ONE_EACH_TOTAL = 10_000.0
"""C times the total weight where pseudo-labels join such images: about what cross-validation finds where there are four of a class."""
ALONE = "one image of a class"
SEED = 0


@dataclass(frozen=True)
class TrainingRows:
    """What a head learns from: `z` float32 (N, D), `targets` float32 (N, C), `weights` float32 (N,); the first `num_true` rows are true labels, which
    are hard, the others pseudo-labels.
    """

    z: Tensor
    targets: Tensor
    weights: Tensor
    num_true: int

    @property
    def true(self) -> "TrainingRows":
        """The true labels alone."""
        n = self.num_true
        return TrainingRows(self.z[:n], self.targets[:n], self.weights[:n], n)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Classes of the true labels (num_true,)."""
        found: npt.NDArray[np.int64] = self.targets[: self.num_true].argmax(dim=1).numpy()
        return found

    def without(self, rows: npt.NDArray[np.int64]) -> "TrainingRows":
        """The others. `rows`: some of the true labels."""
        kept = torch.from_numpy(np.setdiff1d(np.arange(len(self.z)), rows))
        return TrainingRows(self.z[kept], self.targets[kept], self.weights[kept], self.num_true - len(rows))


@dataclass(frozen=True)
class HeldOut:
    """Images with their classes that a choice is made on: `z` float32 (M, D), `labels` int64 (M,)."""

    z: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Choice:
    """The chosen C, on what it was chosen, and the mean cross-entropy of each C of the grid there."""

    C: float
    on: str
    losses: dict[str, float]


def choose_penalty(rows: TrainingRows, validation: HeldOut | None, folds: int) -> Choice:
    """The C of GRID with the lowest cross-entropy on the validation images, or else by stratified cross-validation, of a probe of the true labels.

    Where pseudo-labels join them, C is divided by as much as the total weight grows: the penalty per image stays what it was chosen to be.
    """
    total, rows = float(rows.weights.sum()), rows.true
    chosen, true = _choose(rows, validation, folds), float(rows.weights.sum())
    if chosen.on == ALONE and total > true:
        return replace(chosen, C=ONE_EACH_TOTAL / total)
    return replace(chosen, C=chosen.C * true / total)


def _choose(rows: TrainingRows, validation: HeldOut | None, folds: int) -> Choice:
    if validation is not None and len(validation.labels):
        return _lowest(_losses(rows, validation), "validation")
    if np.bincount(rows.labels, minlength=rows.targets.shape[1]).min() < FEWEST:
        return Choice(ONE_EACH, ALONE, {})
    total = np.zeros(len(GRID))
    for fold in stratified_folds(rows.labels, folds):
        held = torch.from_numpy(fold)
        own = HeldOut(rows.z[held], torch.from_numpy(rows.labels)[held])
        total += len(fold) * np.array(_losses(rows.without(fold), own))
    return _lowest((total / rows.num_true).tolist(), "cross-validation")


def stratified_folds(labels: npt.NDArray[np.int64], folds: int) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each fold, sorted: the images of a class are dealt out one by one, in random order, so that no fold has all of them."""
    rng = np.random.default_rng(SEED)
    order = np.concatenate([rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)])
    smallest = int(np.bincount(labels)[np.unique(labels)].min())
    number = max(FEWEST, min(folds, smallest))
    for fold in range(number):
        yield np.sort(order[fold::number])


def _losses(rows: TrainingRows, held: HeldOut) -> list[float]:
    """Cross-entropy of the held-out images for each C of GRID, each fit started from the one before."""
    losses, last = [], None
    for inverse_penalty in GRID:
        last = fit_logistic(rows.z, rows.targets, rows.weights, inverse_penalty, last, is_rough=True)
        losses.append(cross_entropy(last, held.z, held.labels))
    return losses


def _lowest(losses: list[float], on: str) -> Choice:
    best = int(np.argmin(losses))
    return Choice(GRID[best], on, {f"{c:g}": round(loss, 6) for c, loss in zip(GRID, losses, strict=True)})


def fit_chosen(rows: TrainingRows, chosen: Choice) -> Fitted:
    """The probe of all rows."""
    return fit_logistic(rows.z, rows.targets, rows.weights, chosen.C)
