"""The `segmentation` objective: a class for every pixel, from streams of images with masks. Pixels of the ignored index have no part in it."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.learner import Learner, make_network
from engine.fit.objective import Context, Objective
from engine.fit.stream_views import StreamViews, one_view_each
from engine.fit.supervised import stream_weights
from engine.fit.workers import average_over_workers
from engine.images.crops import RandomCrop
from engine.settings.block import SettingsError
from engine.tables.schema import IGNORE


class Segmentation(Objective):
    """Cross-entropy of pixels; all streams go through the network in one forward. `fit.stream_weight` weighs the streams' means over pixels."""

    ignores = ("loss", "smoothing")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if context.model.decoder is None:
            raise SettingsError("objective segmentation learns classes of pixels: set decoder=unet for its model")
        self.weights = stream_weights(context.settings)
        model, self.loaded = make_network(context, context.class_names)
        self.views = StreamViews(context, model, one_view_each(context))
        # some encoders end in layers that no feature map passes
        self.learner = Learner(context, model, find_unused_parameters=True)
        self.parts = self.learner.parts()

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:
        return self.views.crops(stream)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        names = self.context.settings.batch
        here = {name: batches[name].to(self.context.device) for name in names}
        views = {name: self.views.masked(name, batch) for name, batch in here.items()}
        self.learner.begin(step)
        logits = self.learner(torch.cat([images for images, _ in views.values()]))
        loss = torch.zeros((), device=self.context.device)
        metrics: dict[str, Tensor | float] = {}
        parts = logits.split([len(batch) for batch in here.values()])
        for (name, (_, mask)), part in zip(views.items(), parts, strict=True):
            each = pixel_loss(part, mask)
            loss = loss + self.weights[name] * each
            metrics[f"loss/{name}"] = each.detach()
            metrics[f"agreement/{name}"] = pixel_agreement(part.detach(), mask)
        return {"loss": loss.detach(), **metrics, **self.learner.update_weights(loss, step)}

    def export(self) -> nn.Module:
        return self.learner.export()


def pixel_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the pixels of `logits` (b, C, S, S) whose class in `mask`, uint8 (b, S, S), is not IGNORE; a scalar, 0 without any.

    The mean over workers is that over the pixels of all: each divides by their number on average.
    """
    total = F.cross_entropy(logits.float(), mask.long(), ignore_index=IGNORE, reduction="sum")
    return total / average_over_workers((mask != IGNORE).sum().float()).clamp(min=1)


def pixel_agreement(logits: Tensor, mask: Tensor) -> Tensor:
    """Share of the pixels that are not IGNORE whose best class is that of the mask, a scalar."""
    known = mask != IGNORE
    return ((logits.argmax(1) == mask) & known).sum() / known.sum().clamp(min=1)
