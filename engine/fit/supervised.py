"""The `supervised` objective: any number of labelled and pseudo-labelled streams, hard or soft targets, under noise.

All streams go through the model in one forward, so that batch norm sees one distribution. The loss is a weighted sum of
the streams' means; with the default weights, shares of the batch, it is the mean over the concatenated batch, as Noisy
Student's paper has it. The paper's program sums CE_labelled + r · CE_pseudo instead, which is (1 + r) times that:
stream_weight {labelled: 1, pseudo: r}.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.learner import Learner, make_network
from engine.fit.losses import LOSSES, dense, dense_labels, refuse_inexact, refuse_pairing, smooth, sparse_soft_ce
from engine.fit.objective import Context, Objective
from engine.fit.stream_views import StreamViews, one_view_each
from engine.images.crops import RandomCrop
from engine.settings.block import Block, SettingsError
from engine.settings.fit import FitSettings


class SupervisedArguments(Block):
    """`fit.objective_args`."""

    loss_args: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the loss, e.g. {temperature: 2} of tempered_ce"
    )


class Supervised(Objective):
    """One model, one optimiser, an optional average of the weights."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = context.settings
        self.loss_args = context.arguments(SupervisedArguments).loss_args
        self.loss = choose_loss(settings.loss, self.loss_args)
        kinds = {name: context.targets.get(name, "distribution") for name in settings.batch}
        refuse_pairing(settings.loss, kinds)
        if settings.smoothing and "distribution" not in kinds.values():
            raise SettingsError(f"smoothing is of distributions, and the targets are {kinds}: leave it out")
        self.weights = stream_weights(settings)
        model, self.loaded = make_network(context, context.class_names)
        self.views = StreamViews(context, model, one_view_each(context))
        self.learner = Learner(context, model)
        self.model = self.learner.model
        self.parts = self.learner.parts()

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:
        return self.views.crops(stream)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        settings, device = self.context.settings, self.context.device
        for name in settings.batch:
            refuse_inexact(
                settings.loss,
                f"stream {name!r}",
                batches[name].classes,
                batches[name].weights,
                self.context.num_classes,
            )
        here = {name: batches[name].to(device) for name in settings.batch}
        images = torch.cat([self.views(name, batch) for name, batch in here.items()])
        self.learner.begin(step)
        logits = self.learner(images)
        loss = torch.zeros((), device=device)
        metrics: dict[str, Tensor | float] = {}
        for (name, batch), part in zip(
            here.items(), logits.split([len(batch) for batch in here.values()]), strict=True
        ):
            each = self.stream_loss(part, batch, self.context.targets.get(name, "distribution"))
            loss = loss + self.weights[name] * each
            metrics[f"loss/{name}"] = each.detach()
            metrics[f"agreement/{name}"] = agreement(part.detach(), batch)
        return {"loss": loss.detach(), **metrics, **self.learner.update_weights(loss, step)}

    def stream_loss(self, logits: Tensor, batch: Batch, kind: str = "distribution") -> Tensor:
        """Mean loss of one stream's rows, whose targets are of `kind`, a scalar."""
        if kind != "distribution":
            targets = dense_labels(batch.classes, batch.weights, self.context.num_classes)
            return LOSSES[self.context.settings.loss](logits, targets, **self.loss_args).mean()
        weights = smooth(batch.classes, batch.weights, self.context.settings.smoothing, self.context.num_classes)
        return self.loss(logits, batch.classes, weights).mean()

    def export(self) -> nn.Module:
        return self.learner.export()


def choose_loss(name: str, arguments: Mapping[str, Any]) -> Any:
    """The loss called `name` as (logits, classes, weights) -> (b,) on targets that are distributions. Raises SettingsError
    for an unknown one, or for arguments without effect.
    """
    if name not in LOSSES:
        raise SettingsError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    if name == "soft_ce":
        if arguments:
            raise SettingsError(
                f"loss soft_ce has no arguments: leave out objective_args.loss_args={dict(arguments)}, or take tempered_ce"
            )
        return sparse_soft_ce
    loss = partial(LOSSES[name], **arguments)
    return lambda logits, classes, weights: loss(logits, dense(classes, weights, logits.shape[1]))


def stream_weights(settings: FitSettings) -> dict[str, float]:
    """Weight of each stream's mean loss: as set, else its share of the batch."""
    total = sum(settings.batch.values())
    return {name: settings.stream_weight.get(name, size / total) for name, size in settings.batch.items()}


def agreement(logits: Tensor, batch: Batch) -> Tensor:
    """Share of rows whose best class is the heaviest of their target, a scalar."""
    heaviest = batch.classes.gather(1, batch.weights.argmax(1, keepdim=True)).squeeze(1)
    return (logits.argmax(1) == heaviest).float().mean()
