"""What a stream hands to an objective."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One rank's rows of a global batch. P is the longest target among them; `seeds` stay on the host and drive the
    views. Where an objective takes random crops, `crops` holds one tensor per crop in its order, and `images` is the first.
    """

    images: Tensor  # uint8 (b, 3, S, S)
    classes: Tensor  # int64 (b, P), padded with -1
    weights: Tensor  # float32 (b, P), 0 where padded
    seeds: npt.NDArray[np.uint64]  # (b,)
    mask: Tensor | None = None  # uint8 (b, 1, S, S)
    crops: tuple[Tensor, ...] = ()  # uint8 (b, 3, S, S) each

    def pictures(self, number: int) -> Tensor:
        """The images for view `number` of the stream, uint8 (b, 3, S, S): its own crop, or the images as decoded where nothing is cropped."""
        return self.crops[number] if self.crops else self.images

    def __len__(self) -> int:
        return len(self.images)

    def pin(self) -> Self:
        """In page-locked memory, from which a GPU copies while it computes."""
        return self._moved(Tensor.pin_memory)

    def to(self, device: torch.device) -> Self:
        """On `device`, without waiting for the copy."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        crops = tuple(move(crop) for crop in self.crops)
        return replace(
            self,
            images=crops[0] if crops else move(self.images),
            classes=move(self.classes),
            weights=move(self.weights),
            mask=None if self.mask is None else move(self.mask),
            crops=crops,
        )
