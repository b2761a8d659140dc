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

from engine.config import Block, SettingsError
from engine.fit.batch import Batch
from engine.fit.losses import LOSSES, dense, dense_labels, refuse_pairing, smooth, sparse_soft_ce
from engine.fit.objective import Context, Objective
from engine.fit.optimisers import optimiser, set_rate
from engine.fit.schedule import learning_rate
from engine.images.views import View
from engine.models.build import build, normalisation
from engine.models.checkpoint import initialise
from engine.models.ema import moving_average
from engine.progress import say
from engine.settings import FitSettings, NoiseSettings

WEAK = NoiseSettings()
"""The view of a stream for which `fit.noise` has none: mirrored half of the time."""


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
        refuse_pairing(settings.loss, {name: context.targets.get(name, "distribution") for name in settings.batch})
        self.weights = stream_weights(settings)
        # every rank draws the same weights, and the same ones after a restart
        torch.manual_seed(settings.seed)
        model = build(context.model, context.num_classes)
        if context.init is not None:
            report = initialise(model, context.init)
            if context.rank == 0:
                say("initial weights", str(report))
        to = normalisation(context.model, model)
        self.views = {
            name: View(settings.noise.get(name, WEAK), context.model.img_size, to.mean, to.std)
            for name in settings.batch
        }
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(context.device).to(memory_format=self.layout)
        self.optimiser = optimiser(self.model, settings)
        self.parts = {"model": self.model, "optimiser": self.optimiser}
        self.average = moving_average(self.model, settings.model_ema_decay) if settings.model_ema else None
        if self.average is not None:
            self.parts["average"] = self.average
        self.distributed = context.distribute(self.model)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        settings, device = self.context.settings, self.context.device
        here = {name: batches[name].to(device) for name in settings.batch}
        images = torch.cat([self.views[name](batch.images, batch.seeds)[0] for name, batch in here.items()])
        self.distributed.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=self.context.precision == "bf16"):
            logits = self.distributed(images.contiguous(memory_format=self.layout))
        loss = torch.zeros((), device=device)
        metrics: dict[str, Tensor | float] = {}
        for (name, batch), part in zip(
            here.items(), logits.float().split([len(batch) for batch in here.values()]), strict=True
        ):
            each = self.stream_loss(part, batch, self.context.targets.get(name, "distribution"))
            loss = loss + self.weights[name] * each
            metrics[f"loss/{name}"] = each.detach()
            metrics[f"agreement/{name}"] = agreement(part.detach(), batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.clip_grad is not None:
            metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_grad).detach()
        metrics["lr"] = set_rate(self.optimiser, learning_rate(settings, step))
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.model, step + 1)
        return {"loss": loss.detach(), **metrics}

    def stream_loss(self, logits: Tensor, batch: Batch, kind: str = "distribution") -> Tensor:
        """Mean loss of one stream's rows, whose targets are of `kind`, a scalar."""
        if kind != "distribution":
            targets = dense_labels(batch.classes, batch.weights, self.context.num_classes)
            return LOSSES[self.context.settings.loss](logits, targets, **self.loss_args).mean()
        weights = smooth(batch.classes, batch.weights, self.context.settings.smoothing, self.context.num_classes)
        return self.loss(logits, batch.classes, weights).mean()

    def export(self) -> nn.Module:
        return self.model if self.average is None else self.average.module


def choose_loss(name: str, arguments: Mapping[str, Any]) -> Any:
    """The loss called `name` as (logits, classes, weights) -> (b,) on targets that are distributions. Raises SettingsError
    for an unknown one.
    """
    if name not in LOSSES:
        raise SettingsError(f"loss {name!r} is unknown; known: {', '.join(LOSSES)}")
    if name == "soft_ce":
        return sparse_soft_ce
    loss = partial(LOSSES[name], **arguments)
    return lambda logits, classes, weights: loss(logits, dense(classes, weights, logits.shape[1]))


def stream_weights(settings: FitSettings) -> dict[str, float]:
    """Weight of each stream's mean loss: as set, else its share of the batch. Raises SettingsError for a stream that
    the batch has not.
    """
    for what, names in (("stream_weight", settings.stream_weight), ("noise", settings.noise)):
        if unknown := names.keys() - settings.batch.keys():
            raise SettingsError(
                f"{what} names the stream {sorted(unknown)[0]!r}, but batch has {', '.join(settings.batch)}"
            )
    total = sum(settings.batch.values())
    return {name: settings.stream_weight.get(name, size / total) for name, size in settings.batch.items()}


def agreement(logits: Tensor, batch: Batch) -> Tensor:
    """Share of rows whose best class is the heaviest of their target, a scalar."""
    heaviest = batch.classes.gather(1, batch.weights.argmax(1, keepdim=True)).squeeze(1)
    return (logits.argmax(1) == heaviest).float().mean()
