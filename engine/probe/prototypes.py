"""Class prototypes: an image is of the class whose mean direction it is nearest to (Wang et al.: SimpleShot, 2019, with the features' mean and scale
taken from the pool). For one to five labels per class, where a probe has little to choose its penalty on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def prototypes(z: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Weight float32 (C, D) and bias float32 (C,), zero, of images `z` float32 (N, D) with `targets` (N, C) and `weights` (N,).

    logit c = z . m_c / temperature, with m_c the mean of the class's directions at length 1. The best class is that of the cosine, which differs by
    the length of z alone, and a linear head fits into the classifier of a network.
    """
    mean = (weights[:, None] * targets).T @ F.normalize(z, dim=1)
    return F.normalize(mean, dim=1) / temperature, torch.zeros(targets.shape[1])
