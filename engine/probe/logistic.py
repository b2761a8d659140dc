"""Multinomial logistic regression with L2, on hard and soft targets.

The objective is scikit-learn's, C sum_i w_i CE(t_i, softmax(W z_i + b)) + |W|^2 / 2, without a penalty on b, and so is its solver, L-BFGS. Here a
target may be a distribution, as pseudo-labels are, and a fit may start from another: scikit-learn has neither.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits
from torch import Tensor

EXACT_CELLS = 2**22
"""Values of z up to which a fit is exact, in float64. Beyond it products with z are in float32 and a rough fit is enough: so many images leave more
uncertain than that.
"""
ROUGH = 1e-5
"""Largest entry of the gradient, of the objective per image, at which a rough fit ends; scikit-learn's default is 1e-4."""
EXACT = 1e-5
"""The same of an exact fit, relative to the strength of the penalty: every weight is then within this of the minimum's."""
LEAST = 1e-10
"""What float64 cannot resolve."""
MOST_ITERATIONS = 2000


@dataclass(frozen=True)
class Fitted:
    """`weight` float64 (C, D), `bias` float64 (C,); `loss`: the mean weighted cross-entropy of the images."""

    weight: Tensor
    bias: Tensor
    loss: float
    iterations: int


def fit_logistic(
    z: Tensor,
    targets: Tensor,
    weights: Tensor,
    inverse_penalty: float,
    start: Fitted | None = None,
    is_rough: bool = False,
) -> Fitted:
    """The minimum for features `z` float32 (N, D), targets (N, C) that sum to 1 and weights (N,); `inverse_penalty` is C. A rough one does for the
    choice of C.
    """
    if len(z) < z.shape[1]:
        return _fit_in_span(z, targets, weights, inverse_penalty, start, is_rough)
    dtype = torch.float64 if z.numel() <= EXACT_CELLS else torch.float32
    total = float(weights.double().sum())
    z, shares = z.to(dtype), (weights.double()[:, None] * targets.double() / total).to(dtype)
    image_shares = shares.sum(dim=1, keepdim=True)
    penalty = 1 / (inverse_penalty * total)
    num_classes, dim = targets.shape[1], z.shape[1]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).view(num_classes, dim + 1)
        weight, bias = both[:, :dim], both[:, dim]
        log_p = torch.log_softmax(torch.addmm(bias.to(dtype), z, weight.to(dtype).T), dim=1)
        loss = -(shares * log_p).sum(dtype=torch.float64)
        slope = log_p.exp_().mul_(image_shares).sub_(shares)
        own = [(slope.T @ z).double() + penalty * weight, slope.sum(dim=0, dtype=torch.float64)[:, None]]
        gradient = torch.cat(own, dim=1)
        return float(loss + penalty / 2 * weight.square().sum()), gradient.numpy().ravel()

    tolerance = ROUGH if is_rough or dtype == torch.float32 else max(EXACT * penalty, LEAST)
    first = np.zeros(num_classes * (dim + 1))
    if start is not None:
        first = torch.cat([start.weight, start.bias[:, None]], dim=1).numpy().ravel()
    options = {"maxiter": MOST_ITERATIONS, "maxfun": 2 * MOST_ITERATIONS, "gtol": tolerance, "ftol": 0.0}
    # the solver's own sums are short: threads of its BLAS would spin while torch computes, and take half of the time
    with threadpool_limits(1, "blas"), one_thread_if(z.numel() <= EXACT_CELLS):
        found = minimize(value, first, jac=True, method="L-BFGS-B", options=options)
    both = torch.from_numpy(found.x).view(num_classes, dim + 1)
    weight, bias = both[:, :dim].clone(), both[:, dim].clone()
    loss = float(found.fun - penalty / 2 * weight.square().sum())
    return Fitted(weight, bias, loss, int(found.nit))


@contextmanager
def one_thread_if(is_small: bool) -> Iterator[None]:
    """torch in one thread while the block runs: where products take less than a millisecond, threads wait for one another longer than that."""
    threads = torch.get_num_threads()
    if is_small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit_in_span(
    z: Tensor, targets: Tensor, weights: Tensor, inverse_penalty: float, start: Fitted | None, is_rough: bool
) -> Fitted:
    """The same where images are fewer than features: the minimum lies in the span of z, in a basis of which the problem is as small as the images."""
    basis = torch.linalg.qr(z.double().T).Q
    inside = None if start is None else replace(start, weight=start.weight @ basis)
    found = fit_logistic(z.double() @ basis, targets, weights, inverse_penalty, inside, is_rough)
    return replace(found, weight=found.weight @ basis.T)


def cross_entropy(fitted: Fitted, z: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy of images `z` float32 (N, D) whose classes are `labels` int64 (N,)."""
    logits = z @ fitted.weight.to(z.dtype).T + fitted.bias.to(z.dtype)
    return float(torch.nn.functional.cross_entropy(logits, labels))
