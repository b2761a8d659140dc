"""What a stream hands to an objective."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One rank's rows of a global batch. P is the longest target among them; `seeds` stay on the host and drive the
    views.
    """

    images: Tensor  # uint8 (b, 3, S, S)
    classes: Tensor  # int64 (b, P), padded with -1
    weights: Tensor  # float32 (b, P), 0 where padded
    seeds: npt.NDArray[np.uint64]  # (b,)
    mask: Tensor | None = None  # uint8 (b, 1, S, S)

    def __len__(self) -> int:
        return len(self.images)

    def pin(self) -> Self:
        """In page-locked memory, from which a GPU copies while it computes."""
        mask = None if self.mask is None else self.mask.pin_memory()
        return replace(
            self,
            images=self.images.pin_memory(),
            classes=self.classes.pin_memory(),
            weights=self.weights.pin_memory(),
            mask=mask,
        )

    def to(self, device: torch.device) -> Self:
        """On `device`, without waiting for the copy."""
        images, classes, weights = (
            tensor.to(device, non_blocking=True) for tensor in (self.images, self.classes, self.weights)
        )
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        return replace(self, images=images, classes=classes, weights=weights, mask=mask)
