"""What is kept of a network's outputs: on the device, where they are large, and in the shard's files."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.settings.predict import PredictSettings
from engine.tasks.extra_scores import extra_score_columns


class Answered(NamedTuple):
    """Answers to N images on the device: classes int64 (N, P), log-odds float32 (N, P), best first, extra scores float32 (N, F), and what the
    sidecar is made of.
    """

    classes: Tensor
    odds: Tensor
    extra: Tensor
    more: tuple[Tensor, ...] = ()


class Answers(Protocol):
    """How outputs become answers. Pickles small."""

    @property
    def is_measured(self) -> bool:
        """Whether the backends can be compared on outputs (N, C) before the step."""

    @property
    def identity(self) -> dict[str, Any]:
        """What of it, besides the settings of predictions, decides an answer."""

    def top_p(self, wanted: int, num_classes: int) -> int:
        """Classes stored per image."""

    def of(self, views: list[Tensor], settings: PredictSettings, top_p: int) -> Answered:
        """The answers to a batch from the outputs of its views."""

    def encode(self, more: tuple[np.ndarray, ...]) -> list[dict[str, Any]]:
        """The sidecar's row of each image of a batch, but for its address; none where there is no sidecar."""

    def sidecar(self, rows: list[dict[str, Any]]) -> tuple[str, pa.Table] | None:
        """Folder and table of a shard's sidecar, from rows with `row` and what `encode` made."""


@dataclass(frozen=True)
class ClassAnswers:
    """The best classes of an image."""

    is_measured: bool = True
    identity: dict[str, Any] = field(default_factory=dict)

    def top_p(self, wanted: int, num_classes: int) -> int:
        return min(wanted, num_classes)

    def of(self, views: list[Tensor], settings: PredictSettings, top_p: int) -> Answered:
        """From logits float32 (N, C) of each view; views are averaged as probabilities."""
        temperature, columns = settings.temperature, settings.columns
        if settings.activation == "sigmoid":
            views = [logits / temperature for logits in views]
            # one view: z itself
            odds = mean_log([F.logsigmoid(z) for z in views]) - mean_log([F.logsigmoid(-z) for z in views])
            scores, classes = odds.topk(top_p, dim=1)
            return Answered(classes, scores, scores.new_empty((len(scores), 0)))
        log_p = mean_log([torch.log_softmax(logits, dim=1) for logits in views]) / temperature
        classes, scores = top_log_odds(log_p, top_p)
        if not columns:
            return Answered(classes, scores, scores.new_empty((len(scores), 0)))
        log_sum = torch.stack([torch.logsumexp(logits, dim=1) for logits in views]).mean(dim=0)
        extra = extra_score_columns(torch.log_softmax(log_p, dim=1), log_sum / temperature, columns)
        return Answered(classes, scores, extra)

    def encode(self, more: tuple[np.ndarray, ...]) -> list[dict[str, Any]]:  # noqa: ARG002
        return []

    def sidecar(self, rows: list[dict[str, Any]]) -> None:  # noqa: ARG002
        return None


def top_log_odds(logits: Tensor, top_p: int) -> tuple[Tensor, Tensor]:
    """The `top_p` best classes of each row and their log-odds log p - log(1-p), best first.

    logits: float (N, C), or log-probabilities (the same thing up to a constant a row). Returns int64 (N, P) and float32 (N, P).
    For every class but the best, 1-p is at least one half and log1p(-p) is exact enough. For the best, 1-p is summed from the others, so that a
    p that rounds to 1 still has its place in the order.
    """
    logits = logits.float()
    log_p, classes = torch.log_softmax(logits, dim=1).topk(top_p, dim=1)
    log_rest = torch.log1p(-log_p.exp().clamp(max=1 - 2**-24))
    others = logits.scatter(1, classes[:, :1], -torch.inf)
    log_rest[:, 0] = torch.logsumexp(others, dim=1) - torch.logsumexp(logits, dim=1)
    return classes, log_p - log_rest


def mean_log(log_p: list[Tensor]) -> Tensor:
    """The mean of one or two tensors of probabilities, all as logarithms."""
    return log_p[0] if len(log_p) == 1 else torch.logaddexp(*log_p) - float(np.log(2))
