"""What a selection would give, from the histogram alone: no predictions are read, whatever their number."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.select.histogram import Histogram
from engine.select.scores import cut_for, probability


@dataclass(frozen=True)
class Preview:
    """A selection's outcome foretold, arrays (C,)."""

    threshold: float
    per_class: int | None
    available: npt.NDArray[np.int64]
    """Images of the class above the threshold."""
    kept: npt.NDArray[np.int64]
    lowest: npt.NDArray[np.float64]
    """Probability of the worst image kept; NaN where none is."""


def preview(best: Histogram, threshold: float, per_class: int | None = None) -> Preview:
    """How many images of each class survive `threshold`, and what K = `per_class` leaves of them: exact."""
    available = best.above(cut_for(threshold))
    kept = available if per_class is None else np.minimum(available, per_class)
    score = best.kth_best(np.maximum(kept, 1))
    lowest = np.where(kept > 0, probability(np.where(kept > 0, score, 0)), np.nan)
    return Preview(threshold, per_class, available, kept, lowest)
