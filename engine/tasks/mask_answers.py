"""A class for every pixel (Babakhin, Sanakoyeu, Kitamura: Semi-supervised segmentation of salt bodies by an ensemble of CNNs, 2019).

An image's confidence is the share of its pixels whose best class has a probability above a cut. The row of an image holds the class that most of its
pixels have and that confidence as log-odds, so that images are selected as ever; the mask itself lies in the sidecar `masks/`.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from engine.settings.predict import PredictSettings
from engine.tasks.answers import Answered, mean_log

FOLDER = "masks"
MASKS = pa.schema([("row", pa.int32()), ("mask", pa.binary()), ("confidence", pa.binary())])
"""`mask`: PNG of class indices (S, S), of the square that the network saw. `confidence`: PNG of 255 x the best class's probability, averaged over
QUARTER x QUARTER pixels."""
QUARTER = 4
"""Pixels a side of the mask for each of the confidence."""


@dataclass(frozen=True)
class MaskAnswers:
    """The classes of an image's pixels."""

    is_measured: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        return {"masks": True}

    def top_p(self, wanted: int, num_classes: int) -> int:  # noqa: ARG002
        """One: the class of most pixels."""
        return 1

    def of(self, views: list[Tensor], settings: PredictSettings, top_p: int) -> Answered:  # noqa: ARG002
        """From logits float32 (N, C, S, S) of each view, the second of the mirrored image; views are averaged as probabilities."""
        views = [views[0], *(view.flip(3) for view in views[1:])]
        log_p = mean_log([torch.log_softmax(logits / settings.temperature, dim=1) for logits in views])
        best, mask = log_p.exp().max(dim=1)
        share = (best > settings.pixel_confidence).float().mean(dim=(1, 2))
        pixels = mask[0].numel()
        odds = torch.logit(share, eps=0.5 / pixels)  # all pixels confident: as if one of twice as many were not
        counts = torch.stack([(mask == c).sum(dim=(1, 2)) for c in range(log_p.shape[1])], dim=1)
        confidence = F.avg_pool2d(best[:, None], QUARTER, ceil_mode=True, count_include_pad=False)[:, 0]
        more = (mask.to(torch.uint8), (confidence * 255).round_().to(torch.uint8))
        return Answered(counts.argmax(1, keepdim=True), odds[:, None], odds.new_empty((len(odds), 0)), more)

    def encode(self, more: tuple[np.ndarray, ...]) -> list[dict[str, Any]]:
        return [{"mask": png(mask), "confidence": png(confidence)} for mask, confidence in zip(*more, strict=True)]

    def sidecar(self, rows: list[dict[str, Any]]) -> tuple[str, pa.Table]:
        return FOLDER, pa.Table.from_pylist(rows, schema=MASKS)


def png(values: np.ndarray) -> bytes:
    """uint8 (h, w) as a grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(values, "L").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
