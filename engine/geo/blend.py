"""How the windows of a map overlap: where they lie and what weight their pixels have (Hann ramps, whose sum is 1 everywhere).

    |trim|ramp|      full weight      |ramp|trim|
                                 |trim|ramp|      full weight      …

The first window begins outside the scene and the last one ends there, so that every pixel of the scene is seen with surroundings on all sides.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALIGN = 32
"""Windows begin at multiples of it where their stride is one, too: a network that halves its maps five times sees the same grid everywhere."""

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Windows:
    """Windows of `size` pixels along one side of a scene, each sharing `overlap` pixels with the next and unused in its outer `trim`.

    Raises ValueError for an overlap or trim that leaves nothing.
    """

    extent: int
    size: int
    overlap: int
    trim: int

    def __post_init__(self) -> None:
        if not (0 <= 2 * self.trim <= self.overlap and 2 * self.overlap <= self.size):
            raise ValueError(
                f"overlap={self.overlap}, trim={self.trim}: windows are {self.size} pixels a side (the model's img_size), overlap is at most"
                " half of that and trim at most half of the overlap"
            )

    @property
    def stride(self) -> int:
        return self.size - self.overlap

    @property
    def ramp(self) -> int:
        """Pixels in which one window's weight gives way to the next one's."""
        return self.overlap - 2 * self.trim

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where the windows begin (n,), the first at or before 0."""
        first = self.overlap - self.trim
        if self.stride % ALIGN == 0:
            first = -(-first // ALIGN) * ALIGN
        beyond = self.extent + first - (self.size - self.overlap + self.trim)
        return np.arange(max(-(-beyond // self.stride), 0) + 1) * self.stride - first

    @property
    def weights(self) -> Weights:
        """float32 (size,): those of two neighbours add up to 1."""
        up = np.sin(np.pi / 2 * (np.arange(self.ramp) + 0.5) / max(self.ramp, 1)) ** 2
        full = np.ones(self.size - 2 * self.overlap + 2 * self.trim)
        edge = np.zeros(self.trim)
        return np.concatenate([edge, up, full, up[::-1], edge]).astype(np.float32)

    def strips(self) -> list[tuple[int, int]]:
        """The pixels that are final once window k is added, start and end for each; together the whole extent."""
        ends = [*(int(start) + self.trim for start in self.starts[1:]), self.extent]
        ends = [min(max(end, 0), self.extent) for end in ends]
        return list(zip([0, *ends[:-1]], ends, strict=True))


def reflected(positions: npt.NDArray[np.int64], extent: int) -> npt.NDArray[np.int64]:
    """Positions inside 0 … extent - 1 for any: mirrored at the first and last pixel."""
    if extent == 1:
        return np.zeros_like(positions)
    turn = 2 * (extent - 1)
    inside = np.abs(positions) % turn
    return np.where(inside < extent, inside, turn - inside)
