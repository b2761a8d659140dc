"""Adaptive cuts against their formulas on plain arrays, and Noisy Student's published thinning."""

import numpy as np
import pytest

from engine.select import thresholds
from engine.select.histogram import Histogram
from engine.select.published import thinning
from engine.select.scores import probability
from engine.select.topk import TopK
from tests.select.tables import Pool, random_pool

C = 6


def histograms(pool: Pool) -> tuple[Histogram, Histogram]:
    best, every = Histogram(C), Histogram(C)
    best.update(pool.classes[:, 0].astype(np.uint16), pool.log_odds[:, 0])
    every.update(pool.classes.astype(np.uint16), pool.log_odds)
    return best, every


@pytest.fixture
def pool() -> Pool:
    """All six classes stored, so that every mean is exact."""
    return random_pool(3000, C, C, seed=0, confidence=3.0)


def test_flexmatch_formula(pool: Pool) -> None:
    """t b / (2 - b), b = confident rows of a class over the largest class's (or over the unconfident rest, warming up)."""
    p, best = probability(pool.log_odds[:, 0]), pool.classes[:, 0]
    confident = np.bincount(best[p > 0.95], minlength=C)
    b = confident / confident.max()
    assert np.allclose(thresholds.flexmatch(histograms(pool)[0], warm_up=False), 0.95 * b / (2 - b))
    b = confident / max(confident.max(), len(p) - confident.sum())
    assert np.allclose(thresholds.flexmatch(histograms(pool)[0]), 0.95 * b / (2 - b))


def test_freematch_formula(pool: Pool) -> None:
    """Mean confidence times mean prediction over the largest mean prediction, with and without its clip."""
    p = probability(pool.log_odds)
    prior = np.bincount(pool.classes.reshape(-1), p.reshape(-1), minlength=C)
    wanted = p[:, 0].mean() * prior / prior.max()
    assert np.allclose(thresholds.freematch(*histograms(pool)), wanted)
    assert np.allclose(thresholds.freematch(*histograms(pool), clip=(0, 0.5)), np.minimum(wanted, 0.5))


def test_mean_prediction_sums_to_one_when_classes_are_missing() -> None:
    """With two of six classes stored the rest is shared out; the result stays near the exact one."""
    full, cut = (random_pool(3000, C, p, seed=0, confidence=3.0) for p in (C, 2))
    exact, near = (thresholds.mean_prediction(*histograms(pool)) for pool in (full, cut))
    assert near.sum() == pytest.approx(1)
    assert np.abs(exact - near).max() < 0.03


def test_a_larger_quota_never_raises_the_cut(pool: Pool) -> None:
    best, _ = histograms(pool)
    cuts = np.array([best.kth_best(np.full(C, quota)) for quota in range(1, 600)], np.float64)
    cuts = np.where(np.isnan(cuts), -np.inf, cuts)  # a class without so many images
    assert (cuts[1:] <= cuts[:-1]).all()
    assert (cuts[0] > cuts[-1]).all()


def test_softmatch_weight(pool: Pool) -> None:
    """1 from the mean upwards, exp(-(mu - p)^2 / (2 var / 4)) below, with mean and variance of the confidences."""
    p = probability(pool.log_odds[:, 0])
    weight = thresholds.softmatch(histograms(pool)[0])
    wanted = np.where(p >= p.mean(), 1, np.exp(-((p - p.mean()) ** 2) / (2 * p.var(ddof=1) / 4)))
    assert np.allclose(weight(p), wanted)


def test_adamatch_is_relative_to_the_labelled_images() -> None:
    """0.9 times the mean confidence on labels."""
    assert thresholds.adamatch(np.array([0.8, 1.0])) == pytest.approx(0.81)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.77, 1.0])
def test_quantile_passes_the_best_share_of_each_class(pool: Pool, share: float) -> None:
    """At least the share, and without the last score's ties less than it."""
    cuts = thresholds.quantile(histograms(pool)[0], share)
    for c in range(C):
        scores = pool.log_odds[pool.classes[:, 0] == c, 0]
        passing = scores[scores > cuts[c]]
        assert len(passing) >= share * len(scores)
        assert (passing > passing.min()).sum() < share * len(scores)


def test_floor_and_ceiling_on_the_accepted_share(pool: Pool) -> None:
    """Cuts stay where the share is in bounds; else they move just far enough, all together."""
    best = histograms(pool)[0]
    classes, scores = pool.classes[:, 0], pool.log_odds[:, 0]

    def share(cuts: np.ndarray) -> float:
        return float((scores > cuts[classes]).mean())

    cuts = thresholds.score_cuts(np.linspace(0.5, 0.95, C))
    assert thresholds.bounded(cuts, best, 0.0, 1.0) is cuts
    lowered = thresholds.bounded(cuts, best, at_least=0.9)
    assert 0.9 <= share(lowered) < 0.93
    assert (lowered < cuts).all()
    raised = thresholds.bounded(cuts, best, at_most=0.1)
    assert 0.08 < share(raised) <= 0.1
    assert (raised > cuts).all()
    assert share(thresholds.bounded(cuts, best, at_least=1.0)) == 1
    assert share(thresholds.bounded(cuts, best, at_most=0.0)) == 0
    with pytest.raises(ValueError, match="a floor below a ceiling"):
        thresholds.bounded(cuts, best, 0.5, 0.4)


def test_score_cuts_pass_what_the_probability_passes(pool: Pool) -> None:
    """As floors of a top-K, class cuts accept exactly the rows above each class's probability."""
    wanted = np.linspace(0.2, 0.99, C)
    top_k = TopK(C, None, thresholds.score_cuts(wanted))
    classes, scores = pool.classes[:, 0], pool.log_odds[:, 0]
    top_k.update(classes.astype(np.uint16), scores, pool.shard, pool.row)
    above = probability(scores) > wanted[classes]
    assert np.array_equal(top_k.available, np.bincount(classes[above], minlength=C))


def test_published_thinning() -> None:
    """Pool at the first of 101 thresholds with K images, none below 0.3; expected copies are K within 3 sigma."""
    random = np.random.default_rng(0)
    sizes = [40_000, 700, 0, 5]
    p = [random.beta(4, 2, n) for n in sizes]
    p[3][:] = 0.2
    scores = [np.log(x / (1 - x)).astype(np.float16) for x in p]
    classes = np.repeat(np.arange(4), sizes).astype(np.uint16)
    flat = np.concatenate(scores)
    best = Histogram(4)
    best.update(classes, flat)
    rule = thinning(best, per_class=3000)
    stored = [probability(s) for s in scores]
    steps = np.arange(101) / 100
    wanted = max(t for t in steps if (stored[0] >= t).sum() >= 3000)
    assert rule.threshold[0] == wanted
    assert rule.pool[0] == (stored[0] >= wanted).sum()
    assert rule.threshold[1] == 0.3
    assert rule.pool[1] == (stored[1] >= 0.3).sum()
    assert rule.pool[2] == rule.pool[3] == 0
    shard = np.arange(len(flat), dtype=np.int32)
    count = rule.counts(classes, flat, shard, np.zeros_like(shard))
    for c in (0, 1):
        fraction = rule.copies[c] % 1
        sigma = np.sqrt(rule.pool[c] * fraction * (1 - fraction))
        assert abs(count[classes == c].sum() - 3000) < 3 * sigma
        emitted = count[(classes == c) & (probability(flat) >= rule.threshold[c])]
        assert set(emitted.tolist()) <= {int(rule.copies[c]), int(rule.copies[c]) + 1}
    assert count[classes >= 2].sum() == 0
