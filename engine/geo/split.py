"""Which tiles are validation: those inside drawn blocks of the earth's surface. Scenes that overlap agree on the blocks."""

import hashlib
import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from engine.geo.scene import Scene, short_crs
from engine.geo.tile import Ints
from engine.settings.geo import SplitSettings

Side = Literal["train", "validation", "border"]
NEAR = 1e-9
"""Share of a block within which a tile's edge counts as that of the block."""


@dataclass(frozen=True)
class BlockSplit:
    """A tile is validation when it lies in validation blocks alone, and trained on when these are at least `margin` away; what is neither is of the
    border. So any two tiles of the two sides are at least `margin` apart."""

    settings: SplitSettings

    def sides(self, scene: Scene, grid: Ints, size: int) -> list[Side]:
        """The side of each tile (n,) of a scene's grid."""
        crs = short_crs(scene.crs)
        found: list[Side] = []
        for left, top in grid.tolist():
            box = scene.box(left, top, size, size)
            inside = [self._is_drawn(crs, block) for block in self._blocks(box, 0.0)]
            if all(inside):
                found.append("validation")
            elif any(self._is_drawn(crs, block) for block in self._blocks(box, self.settings.margin)):
                found.append("border")
            else:
                found.append("train")
        return found

    def _blocks(self, box: tuple[float, float, float, float], margin: float) -> list[tuple[int, int]]:
        """Columns and rows of the blocks that a box grown by `margin` has area in."""
        side = self.settings.block
        low = [math.floor((one - margin) / side + NEAR) for one in box[:2]]
        high = [math.ceil((one + margin) / side - NEAR) for one in box[2:]]
        columns, rows = (range(a, max(b, a + 1)) for a, b in zip(low, high, strict=True))
        return list(itertools.product(columns, rows))

    def _is_drawn(self, crs: str, block: tuple[int, int]) -> bool:
        key = (crs, *block)
        if key not in self._drawn:
            named = f"{self.settings.seed} {crs} {block[0]} {block[1]}".encode()
            number = int.from_bytes(hashlib.sha256(named).digest()[:8], "big") / 2**64
            self._drawn[key] = number < self.settings.share
        return self._drawn[key]

    @cached_property
    def _drawn(self) -> dict[tuple[str, int, int], bool]:
        return {}
