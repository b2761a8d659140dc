"""How a student's progress on true labels rates its teacher's pseudo-labels (Meta Pseudo Labels, Pham et al. 2021, section 2 and appendix A).

Teacher T labels x_u, the student S moves from θ to θ' = θ - η g with g the gradient of its mean loss on these labels, and
M = L(θ') is then its loss on true labels. What is wanted is dM/dT, and v = ∇L(θ') is all that it needs to know of L:

    hard labels drawn from P_T    dM/dT = E[ h · d(-Σ log P_T(ŷ)) ],   h = η <v, g> ≈ L(θ) - L(θ')      (REINFORCE)
    soft labels q = P_T           dM/dT = η/B Σ_u Σ_c dq_uc <v, ∇ log p_S(c | u)>                        (exact)

h is old minus new: positive where the labels helped, and then the teacher is drawn towards them. The sum, not the mean,
over the batch belongs to it.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

Weights = Mapping[str, Tensor]


def draw(probabilities: Tensor, uniform: npt.NDArray[np.float64]) -> Tensor:
    """One class a row, int64 (B,), drawn from `probabilities` (B, C) by the numbers `uniform` (B,) in [0, 1)."""
    reached = probabilities.double().cumsum(1)
    places = torch.from_numpy(uniform).to(probabilities.device) * reached[:, -1]
    return (reached <= places[:, None]).sum(1).clamp(max=probabilities.shape[1] - 1)


def product(rate: float, progress: Weights, gradient: Weights) -> Tensor:
    """h = η <v, g>, a scalar; `progress` is v, the gradient of the labelled loss after the student's step."""
    return rate * torch.stack([(progress[name] * gradient[name]).sum() for name in progress]).sum()


def slopes(model: nn.Module, weights: Weights, progress: Weights, images: Tensor) -> Tensor:
    """<v, ∇ log p(c | x)> of every image and class, (B, C): how log p changes when `weights` move along `progress`."""

    def answers(values: Weights) -> Tensor:
        return functional_call(model, dict(values), (images,)).log_softmax(1)

    return jvp(answers, (dict(weights),), (dict(progress),))[1]


def soft_term(logits: Tensor, rate: float, slope: Tensor) -> Tensor:
    """A scalar whose gradient in the teacher's `logits` (B, C) is that of M; `slope` is of `slopes`."""
    return rate * (logits.softmax(1) * slope.detach()).sum(1).mean()


def sampled_term(logits: Tensor, drawn: Tensor, feedback: Tensor) -> Tensor:
    """A scalar whose gradient in the teacher's `logits` (B, C) is, in the mean over draws, that of M; `feedback` is h."""
    return feedback.detach() * nn.functional.cross_entropy(logits, drawn, reduction="sum")
