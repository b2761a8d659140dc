"""A teacher's forward pass: decoded images in, top-P classes and float16 log-odds out. Torch only."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.models.checkpoint import Loaded, load
from engine.settings import PredictSettings


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


class Predictor:
    """A model in eval mode without any noise, on one device, obeying the step's plan."""

    def __init__(self, model_folder: Path, settings: PredictSettings, device: str = "cpu") -> None:
        self.loaded: Loaded = load(model_folder)
        self.settings = settings
        self.device = torch.device(device)
        self.top_p = min(settings.top_p, len(self.loaded.class_names))
        self.model = self.loaded.model.eval().to(self.device).to(memory_format=torch.channels_last)
        self.mean = torch.tensor(self.loaded.mean, device=self.device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(self.loaded.std, device=self.device).view(1, 3, 1, 1) * 255

    @torch.inference_mode()
    def log_probabilities(self, images: Tensor) -> Tensor:
        """Log-probabilities float32 (N, C) of uint8 images (N, 3, S, S), averaged as probabilities over the views asked for."""
        pixels = (images.to(self.device, non_blocking=True).float() - self.mean) / self.std
        log_p = self._forward(pixels)
        if self.settings.views == "flip":
            log_p = torch.logaddexp(log_p, self._forward(pixels.flip(3))) - float(np.log(2))
        return log_p

    def _forward(self, pixels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.amp):
            logits = self.model(pixels.contiguous(memory_format=torch.channels_last))
        return torch.log_softmax(logits.float(), dim=1)

    def __call__(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Classes int64 (N, P) and scores float16 (N, P) of uint8 images (N, 3, S, S), in batches of the plan's size."""
        classes, scores = [], []
        for batch in images.split(self.settings.batch_size):
            best, odds = top_log_odds(self.log_probabilities(batch) / self.settings.temperature, self.top_p)
            classes.append(best.cpu().numpy())
            scores.append(odds.cpu().numpy().astype(np.float16))
        return np.concatenate(classes), np.concatenate(scores)
