"""Thresholds computed from stored scores: the cuts of the online methods, offline and for any number of images.

Online, FlexMatch keeps a state for every image and FreeMatch, SoftMatch and AdaMatch moving averages over batches. Over a
finished pass the averages are plain means, and all of them follow from two histograms: of the best class of each image
(`best`), and of all stored ones (`all_stored`). Formulas give probabilities, (C,) one a class; `score_cuts` makes of them
the float16 cuts that a selection takes as its floor: a row passes strictly above.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.select.histogram import Histogram
from engine.select.scores import Half, cut_for, order_of, probability, score_of

Floats = npt.NDArray[np.float64]

TINY = 1e-9
FINITE = np.array([np.finfo(np.float16).max])
WIDEST = float(FINITE[0])


def score_cuts(thresholds: npt.NDArray[np.floating]) -> Half:
    """The float16 cut of each class (C,) from its probability (C,); 1 and above lets nothing pass."""
    return np.array([cut_for(float(t)) if t < 1 else np.inf for t in thresholds], np.float16)


def quantile(best: Histogram, share: float) -> Half:
    """Float16 cuts that pass at least the best `share` of each class's images: curriculum labelling's percentile (2001.06001).

    Images equal to the last one are in with it. Nothing passes in a class without images.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share} is not in (0, 1]")
    total = best.total
    last = best.kth_best(np.maximum(np.ceil(share * total), 1).astype(np.int64))
    just_below = score_of(order_of(last) - np.uint16(1))
    return np.where(total > 0, just_below, np.inf).astype(np.float16)


def flexmatch(best: Histogram, threshold: float = 0.95, warm_up: bool = True) -> Floats:
    """FlexMatch (2110.08263): t * b / (2 - b), b a class's confident images over the largest class's.

    With `warm_up` the images confident of nothing count as a class, so that cuts start low while few are confident.
    """
    confident = best.above(cut_for(threshold))
    largest = max(confident.max(), best.total.sum() - confident.sum()) if warm_up else confident.max()
    learned = confident / max(largest, 1)
    return threshold * learned / (2 - learned)


def freematch(best: Histogram, all_stored: Histogram, clip: tuple[float, float] = (0.0, 1.0)) -> Floats:
    """FreeMatch (2205.07246): the mean of the best probability, times a class's mean prediction over the largest one."""
    prior = mean_prediction(best, all_stored)
    return np.clip(mean_confidence(best) * prior / prior.max(), *clip)


def adamatch(labelled_confidence: npt.NDArray[np.floating], share: float = 0.9) -> float:
    """AdaMatch (2106.04732): a share of the mean best probability (N,) on *labelled* images, one cut for all classes."""
    return float(share * np.mean(labelled_confidence, dtype=np.float64))


@dataclass(frozen=True)
class SoftWeight:
    """SoftMatch (2301.10921): no cut but a weight, 1 from the mean confidence upwards and Gaussian below it."""

    mean: float
    variance: float
    num_sigma: float = 2.0

    def __call__(self, confidence: npt.NDArray[np.floating]) -> Floats:
        """Weights of confidences (N,)."""
        short = np.minimum(np.asarray(confidence, np.float64) - self.mean, 0)
        return np.exp(-(short**2) / (2 * max(self.variance, 1e-12) / self.num_sigma**2))


def softmatch(best: Histogram, num_sigma: float = 2.0) -> SoftWeight:
    """The weight of SoftMatch from the mean and variance of the stored confidences."""
    confidence, mean = probability(score_of(best.order)), mean_confidence(best)
    spread = float((best.counts * (confidence - mean) ** 2).sum())
    return SoftWeight(mean, spread / max(best.counts.sum() - 1, 1), num_sigma)


def mean_confidence(best: Histogram) -> float:
    """Mean probability of the best class over all images."""
    return float(best.probability_sum().sum() / max(best.counts.sum(), 1))


def mean_prediction(best: Histogram, all_stored: Histogram) -> Floats:
    """Mean predicted distribution (C,), summing to 1.

    The mass that is not stored is shared out by how often a class was not among the stored ones; it is exact when all
    classes are stored.
    """
    num_images = max(int(best.counts.sum()), 1)
    listed = all_stored.probability_sum() / num_images
    unlisted = num_images - all_stored.total
    rest = max(1 - listed.sum(), 0) * unlisted / max(unlisted.sum(), 1)
    mean: Floats = (listed + rest) / (listed + rest).sum()
    return mean


def bounded(cuts: Half, best: Histogram, at_least: float = 0.0, at_most: float = 1.0) -> Half:
    """Float16 cuts (C,) moved so that the accepted share of all images lies within a floor and a ceiling, where ties allow.

    All classes move together, by one shift in log-odds, no further than needed.
    """
    if not 0 <= at_least <= at_most <= 1:
        raise ValueError(f"accepted share must lie between {at_least} and {at_most}, a floor below a ceiling")
    # Cuts at infinity have no distance to anything: the outermost finite score stands for them.
    base = np.clip(cuts.astype(np.float64), -WIDEST, WIDEST)
    excess, cell = np.unique(score_of(best.order).astype(np.float64) - base[best.classes], return_inverse=True)
    count = np.bincount(cell, best.counts)
    accepted = count[excess > 0].sum() / max(count.sum(), 1)
    if at_least <= accepted <= at_most:
        return cuts
    above = 1 - np.cumsum(count) / count.sum()  # the accepted share when the shift equals each excess
    if accepted > at_most:
        shift = excess[int(np.argmax(above <= at_most + TINY))]
    else:
        enough = np.flatnonzero(above >= at_least - TINY)
        shift = excess[enough[-1]] if len(enough) else -2 * WIDEST
    ladder = score_of(np.arange(order_of(-FINITE)[0], int(order_of(FINITE)[0]) + 1, dtype=np.uint16))
    place = np.searchsorted(ladder.astype(np.float64), base + shift + TINY * abs(shift), side="right") - 1
    return np.where(place >= 0, ladder[np.maximum(place, 0)], -np.inf).astype(np.float16)
