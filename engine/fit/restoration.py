"""Pretexts that give a picture back as it was: `inpainting` fills holes, `colourisation` colours what was made grey.

In-painting (Varty: Self-supervised learning on Image网, 2020). A U-Net on the encoder is trained with the squared error, and the encoder is what
comes out. Pixels are normalised: a hole of zeros is one of the mean colour.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.learner import Learner, make_network
from engine.fit.objective import Context, Objective
from engine.fit.stream_views import StreamViews, one_view_each
from engine.fit.workers import average_over_workers
from engine.images.crops import RandomCrop
from engine.images.holes import holes
from engine.images.randaugment import LUMA
from engine.models.unet import UNet
from engine.settings.block import Block, SettingsError


class InpaintingArguments(Block):
    """`fit.objective_args` of in-painting; the defaults are those of the Image网 notebook, for 128 and 192 pixels."""

    holes: tuple[Annotated[int, Field(ge=0, le=1000)], Annotated[int, Field(ge=1, le=1000)]] = Field(
        (5, 9), description="rectangles an image, the upper bound exclusive"
    )
    side: tuple[Annotated[int, Field(ge=1, le=16_384)], Annotated[int, Field(ge=2, le=16_384)]] = Field(
        (5, 49), description="their sides in pixels, the upper bound exclusive"
    )
    loss_over: Literal["picture", "holes"] = Field("picture", description="where the squared error counts")
    width: int = Field(32, ge=1, le=4096, description="channels of the decoder at full size")


class ColourisationArguments(Block):
    """`fit.objective_args` of colourisation."""

    width: int = Field(32, ge=1, le=4096, description="channels of the decoder at full size")


class Restoration(Objective):
    """A U-Net that restores what a subclass damages."""

    ignores = ("loss", "smoothing", "stream_weight", "layer_decay")

    def __init__(self, context: Context, width: int) -> None:
        super().__init__(context)
        encoder, self.loaded = make_network(context, ())
        self.views = StreamViews(context, encoder, one_view_each(context))
        self.encoder = encoder
        # some encoders end in layers that no feature map passes
        self.learner = Learner(context, UNet(encoder, width=width), find_unused_parameters=True)
        self.parts = self.learner.parts()

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def damage(self, pictures: Tensor, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor | None]:
        """Damaged copies of normalised `pictures` (B, 3, S, S), and where the error counts, bool (B, 1, S, S), if not
        everywhere.
        """

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:
        return self.views.crops(stream)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        pictures, seeds = self.views.joined(batches)
        damaged, where = self.damage(pictures, seeds)
        self.learner.begin(step)
        loss = squared_error(self.learner(damaged), pictures, where)
        return {"loss": loss.detach(), **self.learner.update_weights(loss, step)}

    def export(self) -> nn.Module:
        trained = self.learner.export()
        assert isinstance(trained, UNet)
        return trained.encoder


class Inpainting(Restoration):
    """Fills rectangles; the network does not know where they are."""

    def __init__(self, context: Context) -> None:
        self.arguments = context.arguments(InpaintingArguments)
        for name, (low, high) in (("holes", self.arguments.holes), ("side", self.arguments.side)):
            if not 1 <= low < high:
                raise SettingsError(f"objective_args.{name}: [{low}, {high}] is no range; the upper bound is exclusive")
        super().__init__(context, self.arguments.width)

    def damage(self, pictures: Tensor, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor | None]:
        cut = holes(seeds, pictures.shape[-1], self.arguments.holes, self.arguments.side)
        where = torch.from_numpy(cut)[:, None].to(pictures.device)
        return pictures.masked_fill(where, 0), where if self.arguments.loss_over == "holes" else None


class Colourisation(Restoration):
    """Colours pictures of which only the luminance is left."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.arguments(ColourisationArguments).width)

    def damage(self, pictures: Tensor, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        weights = torch.tensor(LUMA, device=pictures.device).view(1, 3, 1, 1)
        return (pictures * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1), None


def squared_error(outputs: Tensor, pictures: Tensor, where: Tensor | None) -> Tensor:
    """Mean squared error of (B, 3, S, S), a scalar; over the pixels of `where`, bool (B, 1, S, S), when given.

    The mean over workers is then that over the pixels of all: each divides by their number on average.
    """
    errors = (outputs - pictures).square()
    if where is None:
        return errors.mean()
    return (errors * where).sum() / (pictures.shape[1] * average_over_workers(where.sum().float())).clamp(min=1)
