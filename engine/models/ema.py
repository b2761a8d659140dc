"""The average of a model's weights over training, which is what labels, is tested and is saved."""

from timm.utils import ModelEmaV3
from torch import nn


def moving_average(model: nn.Module, decay: float) -> ModelEmaV3:
    """timm's ModelEmaV3 of `model`; the average is its `.module`, in eval mode.

    Call `update(model, step)` after each step, counted from 1. At step t the decay is min(decay, (t - 1) / (t + 8)),
    TensorFlow's warm-up with which Noisy Student was trained: the first weights are copied, and the average spans the
    last tenth or so of training until `decay` takes over (0.999 at step 9,000). Running statistics of batch norm are
    averaged like weights, its counters copied. A state_dict restores it; the step number is the caller's to keep.
    """
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0)
