"""A teacher's forward pass: decoded images in, top-P classes and float16 log-odds out. Torch only."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.checkpoint import Loaded, load
from engine.predict.backends import BACKENDS, Norm, Quantised, UnavailableError, build
from engine.predict.extra_scores import extra_score_columns
from engine.settings.predict import PredictSettings


def top_log_odds(logits: Tensor, top_p: int) -> tuple[Tensor, Tensor]:
    """The `top_p` best classes of each row and their log-odds log p - log(1-p), best first.

    logits: float (N, C), or log-probabilities (the same thing up to a constant a row). Returns int64 (N, P) and float32 (N, P).
    For every class but the best, 1-p is at least one half and log1p(-p) is exact enough. For the best, 1-p is summed from the others, so that a
    p that rounds to 1 still has its place in the order.
    """
    logits = logits.float()
    log_p, classes = torch.log_softmax(logits, dim=1).topk(top_p, dim=1)
    log_rest = torch.log1p(-log_p.exp().clamp(max=1 - 2**-24))
    others = logits.scatter(1, classes[:, :1], -torch.inf)
    log_rest[:, 0] = torch.logsumexp(others, dim=1) - torch.logsumexp(logits, dim=1)
    return classes, log_p - log_rest


def _mean(log_p: list[Tensor]) -> Tensor:
    """The mean of one or two tensors of probabilities, all as logarithms."""
    return log_p[0] if len(log_p) == 1 else torch.logaddexp(*log_p) - float(np.log(2))


@dataclass
class Pending:
    """A batch that the device works on: classes (N, P), log-odds (N, P) and extra scores (N, F) there, and what times it."""

    classes: Tensor
    odds: Tensor
    extra: Tensor
    started: float
    events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None


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
    ) -> None:
        self.loaded: Loaded = load(model_folder)
        self.settings = settings
        self.device = torch.device(device)
        self.top_p = min(settings.top_p, len(self.loaded.class_names))
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
        """Logits float32 (N, C) of uint8 images (N, 3, S, S), one for each of the views asked for."""
        there = self._there(images)
        if self.backend.fixed_shape and len(images) < self.settings.batch_size:
            there = F.pad(there, (0, 0, 0, 0, 0, 0, 0, self.settings.batch_size - len(images)))
        views = [there, there.flip(3)] if self.settings.views == "flip" else [there]
        return [self.forward(view)[: len(images)].float() for view in views]

    @torch.inference_mode()
    def answers(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The top-P classes int64 (N, P) of uint8 images (N, 3, S, S), their log-odds float32 (N, P), best first, and the extra
        columns float32 (N, F) that the settings ask for. Views are averaged as probabilities.
        """
        views, temperature, columns = self.logits(images), self.settings.temperature, self.settings.columns
        if self.settings.activation == "sigmoid":
            views = [logits / temperature for logits in views]
            odds = _mean([F.logsigmoid(z) for z in views]) - _mean(
                [F.logsigmoid(-z) for z in views]
            )  # one view: z itself
            scores, classes = odds.topk(self.top_p, dim=1)
            return classes, scores, scores.new_empty((len(scores), 0))
        log_p = _mean([torch.log_softmax(logits, dim=1) for logits in views]) / temperature
        classes, scores = top_log_odds(log_p, self.top_p)
        if not columns:
            return classes, scores, scores.new_empty((len(scores), 0))
        log_sum = torch.stack([torch.logsumexp(logits, dim=1) for logits in views]).mean(dim=0)
        extra = extra_score_columns(torch.log_softmax(log_p, dim=1), log_sum / temperature, columns)
        return classes, scores, extra

    def start(self, images: Tensor) -> Pending:
        """Set the device to work on at most a batch of images; on a GPU this returns at once."""
        started = time.perf_counter()
        events = None
        if self.device.type == "cuda":
            events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            events[0].record()
        classes, odds, extra = self.answers(images)
        if events:
            events[1].record()
        else:
            started -= time.perf_counter()  # a CPU is done: minus the seconds it took
        return Pending(classes, odds, extra, started, events)

    def finish(self, pending: Pending) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Classes int64 (n, P), scores float16 (n, P), extra scores float16 (n, F), and the seconds for which the device was busy."""
        classes = pending.classes.cpu().numpy()
        odds, extra = (tensor.cpu().numpy().astype(np.float16) for tensor in (pending.odds, pending.extra))
        seconds = -pending.started
        if pending.events:
            pending.events[1].synchronize()
            seconds = pending.events[0].elapsed_time(pending.events[1]) / 1000
        return classes, odds, extra, seconds

    def __call__(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Classes int64 (N, P) and scores float16 (N, P) of uint8 images (N, 3, S, S), in batches of the plan's size."""
        done = [self.finish(self.start(batch))[:2] for batch in images.split(self.settings.batch_size)]
        return np.concatenate([classes for classes, _ in done]), np.concatenate([scores for _, scores in done])
