"""Pretexts that ask what was done to an image: an answer among a few, and cross entropy."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.learner import Learner, make_network
from engine.fit.objective import Context, Objective
from engine.fit.stream_views import StreamViews, one_view_each
from engine.images.crops import RandomCrop


class TransformPrediction(Objective):
    """Learns from the images of every stream alike, whatever they are labelled with. A subclass poses the question; its arguments are read
    before the network is made.
    """

    answers: ClassVar[tuple[str, ...]]
    ignores = ("loss", "smoothing", "stream_weight")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        model, self.loaded = make_network(context, self.answers)
        self.views = StreamViews(context, model, one_view_each(context))
        self.learner = Learner(context, model)
        self.parts = self.learner.parts()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.answers

    @abstractmethod
    def pose(self, pictures: Tensor, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor]:
        """What is shown of normalised `pictures` (B, 3, S, S), and the right answers, int64, one for each shown."""

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:
        return self.views.crops(stream)

    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        pictures, seeds = self.views.joined(batches)
        shown, right = self.pose(pictures, seeds)
        self.learner.begin(step)
        logits = self.learner(shown)
        loss = F.cross_entropy(logits, right)
        accuracy = (logits.detach().argmax(1) == right).float().mean()
        return {"loss": loss.detach(), "accuracy": accuracy, **self.learner.update_weights(loss, step)}

    def export(self) -> nn.Module:
        return self.learner.export()
