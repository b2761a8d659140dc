"""The `rotation` pretext: which of four ways an image was turned (Gidaris et al. 2018, arXiv 1803.07728; METHODS §9).

All four copies of an image stand in one batch. They are exact: pixels are moved, not interpolated, so there is nothing
but the content to tell them apart by. Noise comes before: a mirror after it would exchange 90° and 270°.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.config import Block
from engine.fit.batch import Batch
from engine.fit.learner import WEAK, Learner, network, view
from engine.fit.objective import Context, Objective
from engine.settings import FitSettings

ANGLES = ("0°", "90°", "180°", "270°")


class RotationArguments(Block):
    """`fit.objective_args`: none."""


class Rotation(Objective):
    """Learns from the images of every stream alike, whatever they are labelled with."""

    ignores = ("loss", "smoothing", "stream_weight")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        context.arguments(RotationArguments)
        model, self.loaded = network(context, ANGLES)
        settings = context.settings
        self.views = {name: view(context, model, settings.noise.get(name, WEAK)) for name in settings.batch}
        self.learner = Learner(context, model)
        self.parts = self.learner.parts()

    @classmethod
    def trained_on(cls, settings: FitSettings) -> float:
        return 4 * super().trained_on(settings)

    @property
    def class_names(self) -> tuple[str, ...]:
        return ANGLES

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        here = {name: batch.to(self.context.device) for name, batch in batches.items()}
        images = torch.cat([self.views[name](batch.images, batch.seeds)[0] for name, batch in here.items()])
        turned, angle = four_ways(images)
        self.learner.begin(step)
        logits = self.learner(turned)
        loss = F.cross_entropy(logits, angle)
        accuracy = (logits.detach().argmax(1) == angle).float().mean()
        return {"loss": loss.detach(), "accuracy": accuracy, **self.learner.learn(loss, step)}

    def export(self) -> nn.Module:
        return self.learner.export()


def four_ways(images: Tensor) -> tuple[Tensor, Tensor]:
    """(4 B, C, S, S) and int64 (4 B,): all images as they are, then all turned by 90°, 180° and 270°, and by which."""
    turned = torch.cat([torch.rot90(images, quarter, (2, 3)) for quarter in range(4)])
    return turned, torch.arange(4, device=images.device).repeat_interleave(len(images))
