"""Intervals and paired tests of any measure, by resampling images: seeded, vectorised, in bounded memory.

A measure is given as a function of weights: how often each of N images counts, (N, b) for b resamples at once, to its values (b,).
"""

from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from engine.metrics.interval import Interval

Weights = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

RESAMPLES = 1000
EXHAUSTIVE = 12
"""Images up to which a permutation test tries all 2^N patterns."""
BLOCK_CELLS = 2**23
"""Weights held at once: int32, 32 MiB."""


def bootstrap_weights(images: int, resamples: int, seed: int) -> Iterator[Weights]:
    """How often each image is drawn when `images` are drawn with replacement, as blocks (N, b) of `resamples` columns in all."""
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, BLOCK_CELLS // max(1, images)))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(0, images, (count, images)) + images * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).T.astype(np.int32)


def bootstrap(
    measure: Callable[[Weights], Floats], images: int, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> Interval:
    """The measure of N images with its bias-corrected percentile interval (Efron 1987) over images."""
    value = float(measure(np.ones((images, 1), np.int32))[0])
    resampled = np.concatenate([measure(weights) for weights in bootstrap_weights(images, resamples, seed)])
    return interval_of(value, resampled, level)


def interval_of(value: float, resampled: Floats, level: float = 0.95) -> Interval:
    """The bias-corrected percentile interval of an estimate from its values in resamples (B,); resamples without a value (NaN) are left out."""
    known = np.sort(resampled[np.isfinite(resampled)])
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    normal = NormalDist()
    below = (np.searchsorted(known, value, "left") + np.searchsorted(known, value, "right")) / 2 / len(known)
    shift = 2 * normal.inv_cdf(float(np.clip(below, 1 / (len(known) + 1), len(known) / (len(known) + 1))))
    ends = [normal.cdf(shift + normal.inv_cdf(tail)) for tail in ((1 - level) / 2, (1 + level) / 2)]
    low, high = (float(one) for one in np.quantile(known, ends))
    return Interval(value, min(low, value), max(high, value))


def permutation_p_value(
    difference: Callable[[npt.NDArray[np.bool_]], Floats], images: int, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Two-sided p value of a paired difference under exchange of the two models on single images.

    `difference`: of patterns (N, b), true where the models are exchanged, to values (b,). For a measure that is a mean over images this is the
    sign-flip test. All 2^N patterns are tried for few images, else random ones with the observed pattern counted in, so that p is never 0.
    """
    observed = abs(float(difference(np.zeros((images, 1), bool))[0]))
    enough = observed - 1e-12  # sums in another order round differently
    if images <= EXHAUSTIVE:
        patterns = (np.arange(2**images) >> np.arange(images)[:, None] & 1).astype(bool)
        return float(np.mean(np.abs(difference(patterns)) >= enough))
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, BLOCK_CELLS // max(1, images)))
    extreme = 1
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        flipped = rng.random((count, images)).T < 0.5
        extreme += int((np.abs(difference(flipped)) >= enough).sum())
    return extreme / (resamples + 1)
