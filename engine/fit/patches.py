"""The `patches` pretext: in which of 24 orders the quarters of an image lie (patch placement, jigsaw: Noroozi and Favaro 2016).

Edges that run on from one quarter to the next would give the order away, so each quarter is cut at a place of its own and shown with a gap around
it. Order and places come from the image's own seed.
"""

from itertools import permutations

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from engine.fit.objective import Context
from engine.fit.transform_prediction import TransformPrediction
from engine.images.counter_rng import uniforms
from engine.settings.block import Block, SettingsError

ORDERS = tuple(permutations(range(4)))
"""ORDERS[k][place] is the quarter that lies at `place`, both counted row by row."""


class PatchesArguments(Block):
    """`fit.objective_args` of patches."""

    gap: float = Field(
        0.125, ge=0, lt=1, description="share of a quarter's side that is left out, at a place drawn anew"
    )


class Patches(TransformPrediction):
    """One forward an image."""

    answers = tuple("".join(map(str, order)) for order in ORDERS)

    def __init__(self, context: Context) -> None:
        self.gap = context.arguments(PatchesArguments).gap
        if context.model.img_size % 2:
            raise SettingsError(f"patches cuts images into quarters: img_size {context.model.img_size} is odd")
        super().__init__(context)

    def pose(self, pictures: Tensor, seeds: npt.NDArray[np.uint64]) -> tuple[Tensor, Tensor]:
        draws = uniforms(seeds, 9)
        order = (draws[:, 0] * len(ORDERS)).astype(np.int64)
        left_out = round(self.gap * (pictures.shape[-1] // 2))
        places = (draws[:, 1:] * (left_out + 1)).astype(np.int64).reshape(-1, 4, 2)
        return placed(pictures, order, places, left_out), torch.from_numpy(order).to(pictures.device)


def placed(pictures: Tensor, order: npt.NDArray[np.int64], places: npt.NDArray[np.int64], left_out: int) -> Tensor:
    """`pictures` (B, C, S, S) with their quarters in the order `order` (B,), an index into ORDERS.

    A quarter shows S / 2 - `left_out` pixels a side, from `places` (B, 4, 2) on, row and column in 0..left_out, in the middle of its place;
    around it are zeros.
    """
    batch, channels, size, _ = pictures.shape
    half, side = size // 2, size // 2 - left_out
    quarter = torch.tensor(ORDERS, device=pictures.device)[torch.from_numpy(order).to(pictures.device)]  # (B, 4)
    corner = torch.stack([quarter // 2, quarter % 2], 2) * half  # (B, 4, 2), row and column
    drawn = torch.from_numpy(places).to(pictures.device)
    start = corner + drawn.gather(1, quarter[..., None].expand(-1, -1, 2))
    along = start[..., None] + torch.arange(side, device=pictures.device)  # (B, 4, 2, side)
    rows, columns = along[:, :, 0, :, None], along[:, :, 1, None, :]
    image = torch.arange(batch, device=pictures.device)[:, None, None, None]
    tiles = pictures.permute(0, 2, 3, 1)[image, rows, columns]  # (B, 4, side, side, C)
    shown = pictures.new_zeros(batch, 2, 2, half, half, channels)
    edge = left_out // 2
    shown[:, :, :, edge : edge + side, edge : edge + side] = tiles.view(batch, 2, 2, side, side, channels)
    return shown.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, size, size)
