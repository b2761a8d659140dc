"""A network over a whole scene, in bands of rows: memory does not grow with the scene's height, and what a killed run finished is kept.

A band is what is final once a row of windows is added. It needs that row and the one before alone, so a resume computes one row again and has
the same sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.geo.bands import BandScaling, Pixels, Valid, read_valid, read_window
from engine.geo.blend import Windows, reflected
from engine.tables.schema import IGNORE

Probabilities = npt.NDArray[np.float32]
Classify = Callable[[Pixels], Probabilities]
"""Windows uint8 (n, S, S, 3) to the probabilities float32 (n, C, S, S) of the classes of their pixels."""
FEW = 32
"""Rows of which classes are decided at once: what numpy needs on the way is several times larger than the answer."""


@dataclass(frozen=True)
class Grid:
    """Windows of a scene."""

    rows: Windows
    columns: Windows
    batch: int
    """Windows that the network sees at once."""


@dataclass
class SceneMapper:
    """Maps an open raster."""

    raster: Any
    scaling: BandScaling
    grid: Grid
    classify: Classify
    num_classes: int

    def __post_init__(self) -> None:
        self._row_before: tuple[int, Probabilities] | None = None

    @cached_property
    def strips(self) -> list[tuple[int, int]]:
        """First row and the row after the last of each band."""
        return self.grid.rows.strips()

    def band(self, number: int) -> npt.NDArray[np.uint8]:
        """uint8 (2, rows, width): classes and 255 x the probability of the class; IGNORE and 0 where the scene has no data."""
        first, last = self.strips[number]
        rows, top = self.grid.rows, int(self.grid.rows.starts[number])
        before = self._tail(number - 1) if number else None
        sums = self._sums(number)
        if before is not None:
            sums[:, rows.trim : rows.trim + rows.ramp] += before
        self._row_before = (number, sums[:, rows.stride + rows.trim : rows.size - rows.trim].copy())
        result = np.empty((2, last - first, self.raster.width), np.uint8)
        for row in range(first, last, FEW):
            until = min(row + FEW, last)
            here, into = sums[:, row - top : until - top], result[:, row - first : until - first]
            into[0] = here.argmax(axis=0)
            into[1] = np.rint(here.max(axis=0).clip(0, 1) * 255)
            holes = ~read_valid(self.raster, (0, row, self.raster.width, until - row))
            into[0][holes], into[1][holes] = IGNORE, 0
        return result

    def _tail(self, number: int) -> Probabilities:
        """float32 (C, ramp, width): what a row of windows gives to the band after it."""
        if self._row_before is not None and self._row_before[0] == number:
            return self._row_before[1]
        rows = self.grid.rows
        return self._sums(number)[:, rows.stride + rows.trim : rows.size - rows.trim]

    def _sums(self, number: int) -> Probabilities:
        """float32 (C, S, width): weighted probabilities of one row of windows."""
        rows, columns = self.grid.rows, self.grid.columns
        size, width = rows.size, self.raster.width
        pixels, valid = self._strip(int(rows.starts[number]))
        sums = np.zeros((self.num_classes, size, width), np.float32)
        weights = rows.weights[:, None] * columns.weights[None]
        places = [reflected(start + np.arange(size), width) for start in columns.starts.tolist()]
        seen = [index for index, place in enumerate(places) if valid[:, place].any()]
        for begin in range(0, len(seen), self.grid.batch):
            batch = seen[begin : begin + self.grid.batch]
            found = self.classify(np.stack([pixels[:, places[index]] for index in batch]))
            for index, one in zip(batch, found, strict=True):
                left = int(columns.starts[index])
                inside = slice(max(0, -left), min(size, width - left))
                sums[:, :, left + inside.start : left + inside.stop] += (one * weights)[:, :, inside]
        return sums

    def _strip(self, top: int) -> tuple[Pixels, Valid]:
        """Pixels uint8 (S, width, 3) of the rows of a row of windows, mirrored beyond the scene, and whether they have data (S, width)."""
        rows = reflected(top + np.arange(self.grid.rows.size), self.raster.height)
        first, last = int(rows.min()), int(rows.max()) + 1
        pixels, valid = read_window(self.raster, self.scaling, (0, first, self.raster.width, last - first))
        if pixels.shape[2] == 1:
            pixels = pixels.repeat(3, axis=2)
        if last - first == len(rows):  # inside the scene nothing is mirrored
            return pixels, valid
        return pixels[rows - first], valid[rows - first]
