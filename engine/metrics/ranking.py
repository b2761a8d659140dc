"""Average precision and F1 of several labels per image, of one set or of many resamples of it at once."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.metrics.resampling import Floats, Weights

Truth = npt.NDArray[np.bool_]
Answers = npt.NDArray[np.floating]


class AveragePrecision:
    """Average precision of one class over n images, sorted once: `truth` and `scores` (n,); images that tie stand at the end of their tie."""

    def __init__(self, truth: Truth, scores: Answers) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ordered = scores[self.order]
        hits = np.flatnonzero(truth[self.order])
        last_of_tie = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        self.hits, self.ends = hits, last_of_tie[np.searchsorted(last_of_tie, hits)]
        self.hits_until = np.searchsorted(hits, self.ends, "right") - 1

    def __call__(self, weights: Weights) -> Floats:
        """The values (b,) where images count `weights` (n, b) times; NaN where no true image counts."""
        seen = np.cumsum(weights[self.order], axis=0)[self.ends]
        hit_weights = weights[self.order[self.hits]].astype(np.float64)
        found = np.cumsum(hit_weights, axis=0)
        if not len(found):
            return np.full(weights.shape[1], np.nan)
        precision = np.divide(found[self.hits_until], seen, out=np.zeros(found.shape), where=seen > 0)
        total = found[-1]
        return np.divide(
            (hit_weights * precision).sum(axis=0), total, out=np.full(total.shape, np.nan), where=total > 0
        )


def mean_over_known(values: Sequence[Floats]) -> Floats:
    """The mean over classes of values (b,) each, without those that are NaN; NaN where all are."""
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def f1_per_class(truth: Truth, predicted: Truth, weights: Weights) -> Floats:
    """F1 (C, b) from `truth` and `predicted` (n, C) where images count `weights` (n, b) times; NaN for a class that neither holds."""
    counts = weights.astype(np.float32)
    both = (truth & predicted).T.astype(np.float32) @ counts
    either = (truth.astype(np.float32) + predicted.astype(np.float32)).T @ counts
    return np.divide(2 * both, either, out=np.full(both.shape, np.nan, np.float64), where=either > 0).astype(np.float64)
