"""What is stored of an answer beside its best classes, when it is asked for: entropy, energy, log-sum-exp at other temperatures."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST = float(torch.finfo(torch.float16).max)
PREFIX = "log_sum_exp_"


def extra_score_columns(log_p: Tensor, log_sum: Tensor, columns: Sequence[str]) -> Tensor:
    """Float32 (N, F), a column for each name of `schema.predictions(extra=columns)`, within the range of float16.

    `log_p` float32 (N, C): log-probabilities over all classes. `log_sum` (N,): the log-sum-exp of the logits, which is minus the
    energy (2010.03759).
    """
    made = [_column(log_p, log_sum, name) for name in columns]
    return torch.stack(made, dim=1).clamp(-LARGEST, LARGEST) if made else log_p.new_empty((len(log_p), 0))


def _column(log_p: Tensor, log_sum: Tensor, name: str) -> Tensor:
    if name == "energy":
        return log_sum
    if name == "entropy":
        return certainty(log_p)
    return torch.logsumexp(log_p / float(name.removeprefix(PREFIX)), dim=1)


def certainty(log_p: Tensor) -> Tensor:
    """The log-odds of 1 - H / log C, (N, C) to (N,): 0 for the uniform answer, 1 for a certain one, H the entropy.

    The term of the best class comes from the sum of the others, so that answers whose best p rounds to 1 keep their order.
    """
    best = log_p.argmax(dim=1, keepdim=True)
    others = log_p.scatter(1, best, -torch.inf)
    rest = torch.logsumexp(others, dim=1).exp().clamp(max=1 - 2**-24)
    entropy = torch.special.entr(others.exp()).sum(dim=1) - (1 - rest) * torch.log1p(-rest)
    tiny = torch.finfo(torch.float32).tiny
    return torch.log((math.log(log_p.shape[1]) - entropy).clamp(min=tiny)) - torch.log(entropy.clamp(min=tiny))
