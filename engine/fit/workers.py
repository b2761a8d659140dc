"""What all training workers have to agree on."""

import torch.distributed as dist
from torch import Tensor


def average_over_workers(values: Tensor) -> Tensor:
    """The mean of `values` over all workers, the same tensor on each; every worker must call it."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values
