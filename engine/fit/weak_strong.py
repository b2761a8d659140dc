"""`fixmatch` and `uda`: what a network says of a weak view of an unlabelled image is its target for a strong view.

FixMatch (Sohn et al. 2020, arXiv 2001.07685) takes the best class as a hard target where its probability reaches the
cut; UDA (Xie et al. 2019, arXiv 1904.12848) takes the whole distribution, sharpened. With `cut: freematch` the cut follows
the network's own confidence, class by class (FreeMatch, Wang et al. 2022, arXiv 2205.07246). Both learn from the stream
`labelled` and the stream `pool`, through one forward, so that batch norm sees one distribution.

True labels never change, and every batch holds `batch.labelled` of them: that is the guaranteed minimum which keeps the
network from confirming itself.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.learner import Learner, make_network
from engine.fit.losses import smooth, soft_ce, sparse_soft_ce
from engine.fit.objective import Context, Objective
from engine.fit.stream_views import WEAK, Drawn, StreamViews
from engine.fit.workers import average_over_workers
from engine.images.crops import RandomCrop
from engine.settings.block import Block, SettingsError
from engine.settings.fit import FitSettings, NoiseSettings

STRONG = NoiseSettings(aa_num_ops=2, aa_magnitude=10.0)
"""The strong view when `fit.noise` has none for the pool."""


class WeakStrongArguments(Block):
    """`fit.objective_args`; the defaults are FixMatch's."""

    weak: NoiseSettings = Field(WEAK, description="view of pool images that gives the target; noise.pool is the strong")
    weight: float = Field(1.0, ge=0, le=10**6, description="of the pool's loss beside the labelled one")
    cut: Literal["fixed", "freematch"] = "fixed"
    threshold: float = Field(0.95, ge=0, le=1, description="fixed: least probability; freematch: highest cut")
    momentum: float = Field(0.999, ge=0, lt=1, description="freematch: of the averages that the cut is made from")


class UDAArguments(WeakStrongArguments):
    """`fit.objective_args`; the defaults are UDA's."""

    threshold: float = Field(0.8, ge=0, le=1, description="fixed: least probability; freematch: highest cut")
    temperature: float = Field(0.4, gt=0, le=1000, description="targets are softmax(logits / temperature)")


class ConfidenceThreshold(nn.Module):
    """Targets and the cut; a module because FreeMatch's cut has state, C + 1 numbers, which travels in checkpoints."""

    confidence: Tensor
    classes: Tensor

    def __init__(self, arguments: WeakStrongArguments, num_classes: int) -> None:
        super().__init__()
        self.arguments = arguments
        self.register_buffer("confidence", torch.tensor(1 / num_classes))
        self.register_buffer("classes", torch.full((num_classes,), 1 / num_classes))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Which rows of the weak view's probabilities (B, C) may teach, float32 (B,) of 0 and 1.

        FreeMatch's averages take this batch in first, those of all workers.
        """
        best, chosen = probabilities.max(1)
        if self.arguments.cut == "fixed":
            return (best >= self.arguments.threshold).float()
        seen = average_over_workers(torch.cat([best.mean()[None], probabilities.mean(0)]))
        new = 1 - self.arguments.momentum
        self.confidence.lerp_(seen[0], new)
        self.classes.lerp_(seen[1:], new)
        cuts = self.confidence * self.classes / self.classes.max()
        return (best >= cuts.clamp(max=self.arguments.threshold)[chosen]).float()


class WeakStrong(Objective):
    """One model; a subclass says what the target of the strong view is."""

    ignores = ("loss", "stream_weight")

    def __init__(self, context: Context, arguments: WeakStrongArguments) -> None:
        super().__init__(context)
        settings = context.settings
        needs_labelled_and_pool(settings)
        self.arguments = arguments
        model, self.loaded = make_network(context, context.class_names)
        self.views = StreamViews(context, model, labelled_weak_strong(context, arguments.weak))
        self.learner = Learner(context, model)
        self.targets = ConfidenceThreshold(arguments, context.num_classes).to(context.device)
        self.parts = {**self.learner.parts(), "targets": self.targets}

    @classmethod
    def images_per_step(cls, settings: FitSettings) -> float:
        return settings.batch["labelled"] + 2 * settings.batch["pool"]

    @abstractmethod
    def target(self, logits: Tensor) -> Tensor:
        """The target (B, C) that weak logits give."""

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:
        return self.views.crops(stream)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        labelled, pool = (batches[name].to(self.context.device) for name in ("labelled", "pool"))
        images = [
            self.views("labelled", labelled),
            *(self.views("pool", pool, number) for number in (WEAK_VIEW, STRONG_VIEW)),
        ]
        self.learner.begin(step)
        known, weak, strong = self.learner(torch.cat(images)).split([len(part) for part in images])
        true = labelled_loss(known, labelled, self.context)
        target, kept = self.target(weak.detach()), self.targets(weak.detach().softmax(1))
        pseudo = (soft_ce(strong, target) * kept).mean()
        loss = true + self.arguments.weight * pseudo
        return {
            "loss": loss.detach(),
            "loss/labelled": true.detach(),
            "loss/pool": pseudo.detach(),
            "kept": kept.mean(),
            **self.learner.update_weights(loss, step),
        }

    def export(self) -> nn.Module:
        return self.learner.export()


class FixMatch(WeakStrong):
    """Hard targets above the cut."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.arguments(WeakStrongArguments))

    def target(self, logits: Tensor) -> Tensor:
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)


class UDA(WeakStrong):
    """Soft targets, sharpened."""

    def __init__(self, context: Context) -> None:
        arguments = context.arguments(UDAArguments)
        self.temperature = arguments.temperature
        super().__init__(context, arguments)

    def target(self, logits: Tensor) -> Tensor:
        return (logits / self.temperature).softmax(1)


WEAK_VIEW, STRONG_VIEW = 0, 1


def labelled_weak_strong(context: Context, weak: NoiseSettings) -> dict[str, tuple[Drawn, ...]]:
    """One view of labelled images, a weak and a strong one of pool images."""
    noise = context.settings.noise
    return {
        "labelled": (Drawn(noise.get("labelled", WEAK)),),
        "pool": (Drawn(weak, 1), Drawn(noise.get("pool", STRONG), 2)),
    }


def labelled_loss(logits: Tensor, batch: Batch, context: Context) -> Tensor:
    """Mean cross-entropy of true labels, smoothed according to the settings, a scalar."""
    weights = smooth(batch.classes, batch.weights, context.settings.smoothing, context.num_classes)
    return sparse_soft_ce(logits, batch.classes, weights).mean()


def needs_labelled_and_pool(settings: FitSettings) -> None:
    """Raise SettingsError unless the batch is made of the streams `labelled` and `pool`."""
    if settings.batch.keys() != {"labelled", "pool"}:
        raise SettingsError(
            f"objective {settings.objective} learns from the streams labelled and pool, but batch has "
            f"{', '.join(settings.batch)}: set e.g. batch={{labelled: 64, pool: 448}}"
        )
