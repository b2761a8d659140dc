"""The exponential moving average of the weights of a model: the weights that predict, are evaluated and are saved."""

from timm.utils import ModelEmaV3
from torch import nn


def make_average(model: nn.Module, decay: float) -> ModelEmaV3:
    """timm's ModelEmaV3 of `model`; the averaged model is its `.module`, in eval mode.

    Call `update(model, step)` after each step, counted from 1. At step t the decay is min(decay, (t - 1) / (t + 8)),
    TensorFlow's warm-up, used for Noisy Student: the first weights are copied, and the average spans about the last tenth
    of training until `decay` is reached (0.999 at step 9,000). Running statistics of batch norm are
    averaged like weights, its counters copied. A state_dict restores it; the caller stores the step number.
    """
    return ModelEmaV3(model, decay=decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0)
