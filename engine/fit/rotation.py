"""The `rotation` pretext: which of four ways an image was turned (Gidaris et al. 2018, arXiv 1803.07728).

All four copies of an image stand in one batch. They are exact: pixels are moved, not interpolated, so there is nothing
but the content to tell them apart by. Noise comes before: a mirror after it would exchange 90° and 270°.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.fit.objective import Context
from engine.fit.transform_prediction import TransformPrediction
from engine.settings.block import Block
from engine.settings.fit import FitSettings

ANGLES = ("0°", "90°", "180°", "270°")


class RotationArguments(Block):
    """`fit.objective_args`: none."""


class Rotation(TransformPrediction):
    """Four forwards an image."""

    answers = ANGLES

    def __init__(self, context: Context) -> None:
        context.arguments(RotationArguments)
        super().__init__(context)

    @classmethod
    def images_per_step(cls, settings: FitSettings) -> float:
        return 4 * super().images_per_step(settings)

    def pose(self, pictures: Tensor, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        return four_ways(pictures)


def four_ways(images: Tensor) -> tuple[Tensor, Tensor]:
    """(4 B, C, S, S) and int64 (4 B,): all images as they are, then all turned by 90°, 180° and 270°, and by which."""
    turned = torch.cat([torch.rot90(images, quarter, (2, 3)) for quarter in range(4)])
    return turned, torch.arange(4, device=images.device).repeat_interleave(len(images))
