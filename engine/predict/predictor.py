"""A teacher's forward pass: decoded images in, answers out. Torch only."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.checkpoint import Loaded, load
from engine.predict.backends import BACKENDS, Norm, Quantised, UnavailableError, build
from engine.settings.predict import PredictSettings
from engine.tasks.answers import Answered, Answers, ClassAnswers


@dataclass
class Pending:
    """A batch that the device works on: its answers there, and what times it."""

    answered: Answered
    started: float
    events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None


class Fetched(NamedTuple):
    """A batch's answers: classes int64 (n, P), log-odds float16 (n, P), extra scores float16 (n, F), the sidecar's rows (n or none)."""

    classes: np.ndarray
    odds: np.ndarray
    extra: np.ndarray
    more: list[dict[str, Any]]
    seconds: float


CLASSES = ClassAnswers()


class Predictor:
    """A model in eval mode without any noise, on one device, obeying the step's plan: `settings.backend` and `settings.batch_size` are the plan's.

    `auto` here, where nothing was measured, is channels_last; `quantised` is the step's network for int8. Raises ValueError when this machine
    cannot run the backend.
    """

    def __init__(
        self,
        model_folder: Path,
        settings: PredictSettings,
        device: str = "cpu",
        quantised: Quantised | None = None,
        answers: Answers = CLASSES,
    ) -> None:
        self.answers = answers
        self.loaded: Loaded = load(model_folder)
        self.settings = settings
        self.device = torch.device(device)
        self.top_p = answers.top_p(settings.top_p, len(self.loaded.class_names))
        self.backend = BACKENDS["channels_last" if settings.backend == "auto" else settings.backend]
        shape = (settings.batch_size, 3, self.loaded.img_size, self.loaded.img_size)
        norm = Norm(self.loaded.mean, self.loaded.std)
        try:
            self.forward = build(self.backend.name, self.loaded.model, shape, self.device, quantised, norm)
        except UnavailableError as error:
            raise ValueError(
                f"{platform.node()} cannot run backend {self.backend.name}: {error}; make it available there, or set predict.backend "
                "to another (a step begun with this one is named by its plan.json: delete that file to choose again)"
            ) from error
        self.copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None

    def _there(self, images: Tensor) -> Tensor:
        """Images on the device. On a GPU they are copied in a stream of their own, while the batch before them is computed."""
        if self.copies is None or images.is_cuda:
            return images.to(self.device)
        with torch.cuda.stream(self.copies):
            there = images.to(self.device, non_blocking=True)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.copies)
        there.record_stream(computing)  # its memory is not given away before the computing is done
        return there

    @torch.inference_mode()
    def logits(self, images: Tensor) -> list[Tensor]:
        """The network's outputs, float32 (N, C) or (N, C, S, S), for uint8 images (N, 3, S, S), one for each of the views asked for."""
        there = self._there(images)
        if self.backend.fixed_shape and len(images) < self.settings.batch_size:
            there = F.pad(there, (0, 0, 0, 0, 0, 0, 0, self.settings.batch_size - len(images)))
        views = [there, there.flip(3)] if self.settings.views == "flip" else [there]
        return [self.forward(view)[: len(images)].float() for view in views]

    def start(self, images: Tensor) -> Pending:
        """Set the device to work on at most a batch of images; on a GPU this returns at once."""
        started = time.perf_counter()
        events = None
        if self.device.type == "cuda":
            events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            events[0].record()
        with torch.inference_mode():
            answered = self.answers.of(self.logits(images), self.settings, self.top_p)
        if events:
            events[1].record()
        else:
            started -= time.perf_counter()  # a CPU is done: minus the seconds it took
        return Pending(answered, started, events)

    def finish(self, pending: Pending) -> Fetched:
        """A batch's answers in memory, and the seconds for which the device was busy."""
        answered = pending.answered
        classes = answered.classes.cpu().numpy()
        odds, extra = (tensor.cpu().numpy().astype(np.float16) for tensor in (answered.odds, answered.extra))
        more = self.answers.encode(tuple(tensor.cpu().numpy() for tensor in answered.more))
        seconds = -pending.started
        if pending.events:
            pending.events[1].synchronize()
            seconds = pending.events[0].elapsed_time(pending.events[1]) / 1000
        return Fetched(classes, odds, extra, more, seconds)

    def __call__(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Classes int64 (N, P) and scores float16 (N, P) of uint8 images (N, 3, S, S), in batches of the plan's size."""
        done = [self.finish(self.start(batch)) for batch in images.split(self.settings.batch_size)]
        return np.concatenate([one.classes for one in done]), np.concatenate([one.odds for one in done])
