"""Noisy Student's filter as published: thinning at random from a coarse histogram (google-research/noisystudent).

Confidences are counted at 101 thresholds; walking down from 1.00 to 0.30, the first threshold with at least K images above
it defines the class's pool, and every image of the pool is emitted K / pool times: the integer part always, the rest by
coin. It is not a strict top-K (of a toy class it keeps 72 % of that); it is here to reproduce the paper. The coin is the
hash of the address, so that the answer is the same for any split.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.select.equality import fields_equal
from engine.select.histogram import Histogram
from engine.select.scores import probability, score_of, tie_hash

STEPS = 100


@dataclass(frozen=True, eq=False)
class Thinning:
    """What each class's images are emitted by, arrays (C,)."""

    threshold: npt.NDArray[np.float64]
    """Images at or above it are the pool."""
    pool: npt.NDArray[np.int64]
    copies: npt.NDArray[np.float64]
    """Expected copies of each image of the pool: K / pool; 0 for an empty pool."""

    def __eq__(self, other: object) -> bool:
        return fields_equal(self, other)

    def counts(
        self,
        classes: npt.NDArray[np.unsignedinteger],
        scores: npt.NDArray[np.float16],
        shard: npt.NDArray[np.int32],
        row: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.int32]:
        """How often each of N images is emitted; 0 is not at all."""
        coin = tie_hash(shard, row) / np.float64(2**64)
        copies = self.copies[classes]
        whole = np.floor(copies)
        count = whole + (coin < copies - whole)
        return np.where(probability(scores) >= self.threshold[classes], count, 0).astype(np.int32)


def thinning(best: Histogram, per_class: int, threshold: float = 0.3) -> Thinning:
    """The published rule from the histogram of best classes: K = `per_class`, nothing below `threshold`."""
    lowest = round(threshold * STEPS)
    confidence = probability(score_of(best.order))
    at = np.searchsorted(np.arange(STEPS + 1) / STEPS, confidence, side="right") - 1
    place = best.classes * (STEPS + 1) + at
    bins = np.bincount(place, best.counts, minlength=best.num_classes * (STEPS + 1)).astype(np.int64)
    at_or_above = np.cumsum(bins.reshape(best.num_classes, STEPS + 1)[:, ::-1], axis=1)[:, : STEPS + 1 - lowest]
    enough = at_or_above >= per_class
    steps_down = np.where(enough.any(axis=1), enough.argmax(axis=1), STEPS - lowest)
    pool = at_or_above[np.arange(best.num_classes), steps_down]
    copies = np.divide(per_class, pool, out=np.zeros(best.num_classes), where=pool > 0)
    return Thinning((STEPS - steps_down) / STEPS, pool, copies)
