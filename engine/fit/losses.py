"""Losses of sparse targets: pure functions of logits (b, C) and targets, one value an example (b,).

A target is sparse (`engine.labels.targets`): classes int64 (b, P), padded with -1, and weights float32 (b, P); whatever
its weights lack to 1 is spread evenly over the classes that are not listed. q is the same target as a dense
distribution (b, C), z the logits, p = softmax(z).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.settings.block import SettingsError

HARD = 1 - 1e-6
"""Weight from which a single entry counts as a hard label."""
TINY = 1e-7
"""Floor of what a focal loss raises to gamma, whose slope at 0 is infinite for gamma < 1."""


class _Sparse(NamedTuple):
    classes: Tensor  # (b, P), padding replaced by class 0
    weights: Tensor  # (b, P), 0 where padded
    listed: Tensor  # (b, P) float, 0 where padded
    rest: Tensor  # (b,) mass of each class that is not listed


def _sparse(classes: Tensor, weights: Tensor, num_classes: int) -> _Sparse:
    listed = (classes >= 0).to(weights.dtype)
    weights = weights * listed
    free = (num_classes - listed.sum(1)).clamp(min=1)
    return _Sparse(classes.clamp(min=0), weights, listed, (1 - weights.sum(1)).clamp(min=0) / free)


def dense(classes: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    """Sparse targets as distributions (b, C) float32."""
    entry = _sparse(classes, weights, num_classes)
    excess = entry.weights - entry.rest[:, None] * entry.listed
    return entry.rest[:, None].repeat(1, num_classes).scatter_add_(1, entry.classes, excess)


def smooth(classes: Tensor, weights: Tensor, eps: float, num_classes: int) -> Tensor:
    """Weights (b, P) after label smoothing of the hard targets among them: (1 - eps) one-hot + eps/C. Soft ones stay.

    Only the listed weight moves: what it then lacks to 1 goes to the other classes evenly, which is label smoothing.
    """
    hard = ((classes >= 0).sum(1, keepdim=True) == 1) & (weights.amax(1, keepdim=True) >= HARD)
    return torch.where(hard, weights * (1 - eps + eps / num_classes), weights)


def sparse_soft_ce(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """`soft_ce` of sparse targets without ever building (b, C) of them."""
    entry = _sparse(classes, weights, logits.shape[1])
    normaliser = logits.logsumexp(1)
    listed = (logits.gather(1, entry.classes) - normaliser[:, None]) * entry.listed
    everything = logits.sum(1) - logits.shape[1] * normaliser
    return -(entry.weights * listed).sum(1) - entry.rest * (everything - listed.sum(1))


def soft_ce(logits: Tensor, q: Tensor) -> Tensor:
    """-sum q log p. Gradient in z is p - q; minimiser p = q, where its value is the entropy H(q), not 0."""
    return -(q * logits.log_softmax(1)).sum(1)


def entropy(q: Tensor) -> Tensor:
    """H(q) = -sum q log q in nats, 0 log 0 = 0."""
    return -torch.special.xlogy(q, q).sum(1)


def kl(logits: Tensor, q: Tensor) -> Tensor:
    """KL(q || p) = soft_ce - H(q). Same gradient as `soft_ce`, minimiser p = q, floor 0: the one to watch on soft
    validation targets.
    """
    return soft_ce(logits, q) - entropy(q)


def tempered_ce(logits: Tensor, q: Tensor, temperature: float = 2.0) -> Tensor:
    """T² · CE(q_T, p_T), both raised to 1/T and renormalised; the factor keeps gradients O(1) in T (Hinton et al.
    2015). Minimiser p = q.
    """
    softened = q.clamp(min=0) ** (1 / temperature)
    return temperature**2 * soft_ce(logits / temperature, softened / softened.sum(1, keepdim=True))


def mse(logits: Tensor, q: Tensor) -> Tensor:
    """mean (p - q)². Minimiser p = q; its gradient vanishes when the net is confidently wrong."""
    return (logits.softmax(1) - q).square().mean(1)


def mse_logits(logits: Tensor, teacher: Tensor) -> Tensor:
    """mean (z - z_teacher)². Minimiser z = z_teacher. Wants logits as targets.

    Raises ValueError for probabilities: logits pulled towards numbers in 0..1 would learn an almost uniform softmax.
    """
    sums = teacher.sum(1)
    if bool((teacher >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError(
            "mse_logits wants the teacher's logits, but these targets are probabilities: "
            "use the loss 'mse', 'kl' or 'soft_ce'"
        )
    return (logits - teacher).square().mean(1)


def mse_outputs(outputs: Tensor, y: Tensor) -> Tensor:
    """mean (z - y)² of the raw outputs, which are regressed on one-hot labels or on the outputs of another model (Mobahi et al. 2020, equation 1).

    Minimiser z = y. Whoever reads the outputs through a softmax reads probabilities that are nearly even: the best class is what counts.
    """
    return (outputs - y).square().mean(1)


def bce(logits: Tensor, q: Tensor) -> Tensor:
    """-sum q log s(z) + (1 - q) log(1 - s(z)), s the sigmoid. Gradient s(z) - q; minimiser s(z) = q: for several labels.

    Read through a softmax its minimiser is sharper than q: (.7, .2, .1) becomes (.866, .093, .041).
    """
    return F.binary_cross_entropy_with_logits(logits, q, reduction="none").sum(1)


def focal(logits: Tensor, q: Tensor, gamma: float = 2.0) -> Tensor:
    """-sum q (1 - p)^gamma log p. Biased on soft targets: q = .7 of two is learnt as p = .617 (gamma 1), .579 (2)."""
    log_p = logits.log_softmax(1)
    return -(q * (1 - log_p.exp()).clamp(min=TINY) ** gamma * log_p).sum(1)


def quality_focal(logits: Tensor, q: Tensor, gamma: float = 2.0) -> Tensor:
    """sum |q - s(z)|^gamma · BCE. Minimiser s(z) = q, floor 0 (generalised focal loss, arXiv 2006.04388)."""
    cross = F.binary_cross_entropy_with_logits(logits, q, reduction="none")
    return ((q - logits.sigmoid()).abs().clamp(min=TINY) ** gamma * cross).sum(1)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "soft_ce": soft_ce,
    "kl": kl,
    "tempered_ce": tempered_ce,
    "mse": mse,
    "mse_logits": mse_logits,
    "mse_outputs": mse_outputs,
    "bce": bce,
    "focal": focal,
    "quality_focal": quality_focal,
}
"""Losses by the name that `fit.loss` gives: (logits, q, **arguments) -> (b,)."""

PAIRS: dict[str, tuple[str, ...]] = {
    "soft_ce": ("distribution",),
    "kl": ("distribution",),
    "tempered_ce": ("distribution",),
    "mse": ("distribution",),
    "focal": ("distribution",),
    "mse_logits": ("logits",),
    "mse_outputs": ("distribution", "logits"),
    "bce": ("labels", "distribution"),
    "quality_focal": ("labels", "distribution"),
}
"""Kinds of targets (`labels.tables.Kind`) that each loss is defined on."""

INSTEAD = {
    "distribution": "soft_ce (the usual one), kl (the same gradient, floor 0), mse (bounded, but no gradient where confidently wrong)",
    "logits": "mse_logits, whose minimiser is the teacher's logits; as probabilities they go with soft_ce or kl",
    "labels": "bce, or quality_focal where most labels are easy: a softmax would make the labels of an image compete",
}
"""The losses for each kind, and why one of them."""


def refuse_pairing(loss: str, kinds: Mapping[str, str]) -> None:
    """Raise SettingsError when a stream's targets (`kinds`, by stream) are not those that `loss` is defined on, with the losses that are."""
    for stream, kind in kinds.items():
        if loss in PAIRS and kind not in PAIRS[loss]:
            wanted = " or ".join(PAIRS[loss])
            raise SettingsError(
                f"loss {loss} wants targets that are {wanted}, but the stream {stream!r} holds {kind}: set fit.loss to {INSTEAD[kind]}"
            )


RESIDUE = 1e-4
"""Mass that is not listed from which a soft target counts as truncated; rounding leaves less."""

HARD_ONLY = "is biased on soft targets (0.7 is learned as 0.58 at gamma 2): set select.targets=hard, or loss=soft_ce"
COMPLETE_ONLY = (
    "raises every probability to 1/T, also the even share of classes that are not stored, which makes them far too likely (with 8 of 1,000 classes"
    " most of the target): store all classes with predict.top_p=C, or set loss=soft_ce or kl"
)
REFUSED_SOFT = {"focal": HARD_ONLY}
"""Losses that are not exact on soft targets, and why."""
REFUSED_TRUNCATED = {"focal": HARD_ONLY, "tempered_ce": COMPLETE_ONLY}
"""Losses that are not exact on soft targets of which some classes are not listed, and why."""


def refuse_form(loss: str, where: str, truncated: bool) -> None:
    """Raise SettingsError when `loss` is not exact on soft targets, all classes of which are stored or not (`truncated`)."""
    if reason := (REFUSED_TRUNCATED if truncated else REFUSED_SOFT).get(loss):
        raise SettingsError(f"{where}: loss {loss} {reason}")


def refuse_inexact(loss: str, where: str, classes: Tensor, weights: Tensor, num_classes: int) -> None:
    """Raise SettingsError when `loss` is not exact on these sparse targets (b, P)."""
    if loss not in REFUSED_TRUNCATED:
        return
    listed = (classes >= 0).sum(1)
    soft = (listed > 1) | ((listed == 1) & (weights.amax(1) < HARD))
    truncated = soft & (listed < num_classes) & ((weights * (classes >= 0)).sum(1) < 1 - RESIDUE)
    if bool(soft.any()):
        refuse_form(loss, where, bool(truncated.any()))


def dense_labels(classes: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    """Sparse targets that are no distributions as (b, C) float32: a class that is not listed has 0."""
    entry = _sparse(classes, weights, num_classes)
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, entry.classes, entry.weights)
