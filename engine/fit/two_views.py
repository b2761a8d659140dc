"""The `two_views` pretext: two views of an image should have the same features (consistency).

Features that agree could all be one point. What keeps them apart is that of VICReg (Bardes, Ponce, LeCun 2022, arXiv
2105.04906): every feature must vary over the batch, and no two may say the same. Nothing is kept between steps.
"""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.learner import Learner, make_network
from engine.fit.objective import Context, Objective
from engine.fit.stream_views import Drawn, StreamViews
from engine.images.crops import RandomCrop
from engine.settings.block import Block
from engine.settings.fit import FitSettings, NoiseSettings

STRONG = NoiseSettings(scale=(0.35, 1.0), aa_num_ops=2, aa_magnitude=9.0)
"""The views of a stream for which `fit.noise` has none."""


class TwoViewsArguments(Block):
    """`fit.objective_args`; the weights are those of VICReg."""

    features: int = Field(256, ge=2, le=100_000, description="width of the projection on which views are compared")
    agree: float = Field(25.0, ge=0, le=10**6)
    vary: float = Field(25.0, ge=0, le=10**6)
    differ: float = Field(1.0, ge=0, le=10**6)


class Projected(nn.Module):
    """A timm model without classifier, and the projection of its features."""

    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__()
        self.body = body
        self.projection = nn.Sequential(
            nn.Linear(cast("int", body.num_features), features),
            nn.BatchNorm1d(features),
            nn.ReLU(inplace=True),
            nn.Linear(features, features),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.body(x))


class TwoViews(Objective):
    """Learns from the images of every stream alike; the body is what comes out."""

    ignores = ("loss", "smoothing", "stream_weight", "layer_decay")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.arguments = context.arguments(TwoViewsArguments)
        body, self.loaded = make_network(context, ())
        settings = context.settings
        self.views = StreamViews(
            context,
            body,
            {name: [Drawn(settings.noise.get(name, STRONG), which) for which in (1, 2)] for name in settings.batch},
        )
        self.learner = Learner(context, Projected(body, self.arguments.features))
        self.parts = self.learner.parts()

    @classmethod
    def images_per_step(cls, settings: FitSettings) -> float:
        return 2 * super().images_per_step(settings)

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:
        return self.views.crops(stream)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        here = {name: batch.to(self.context.device) for name, batch in batches.items()}
        pair = [self.views(name, batch, number) for number in (0, 1) for name, batch in here.items()]
        self.learner.begin(step)
        first, second = self.learner(torch.cat(pair)).chunk(2)
        agreeing, varying, differing = (
            invariance_loss(first, second),
            variance_loss(first, second),
            covariance_loss(first, second),
        )
        terms = {"agree": agreeing.detach(), "vary": varying.detach(), "differ": differing.detach()}
        weights = self.arguments
        loss = weights.agree * agreeing + weights.vary * varying + weights.differ * differing
        return {"loss": loss.detach(), **terms, **self.learner.update_weights(loss, step)}

    def export(self) -> nn.Module:
        trained = self.learner.export()
        assert isinstance(trained, Projected)
        return trained.body


def invariance_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of the features (B, D) of two views: 0 for views that are the same."""
    return F.mse_loss(first, second)


def variance_loss(first: Tensor, second: Tensor) -> Tensor:
    """How much the features' standard deviations over the batch lack to 1, a mean; 0 when each reaches it."""
    return sum(F.relu(1 - (one.var(0) + 1e-4).sqrt()).mean() for one in (first, second)) / 2  # type: ignore[return-value]


def covariance_loss(first: Tensor, second: Tensor) -> Tensor:
    """Sum of the squared covariances of different features, over their number; 0 when none are correlated."""

    def off_diagonal(features: Tensor) -> Tensor:
        covariance = features.T.cov()
        return (covariance.square().sum() - covariance.diagonal().square().sum()) / features.shape[1]

    return off_diagonal(first) + off_diagonal(second)
