"""What selection settings come to on given predictions: a cut a class, and the draw of the methods that thin at random."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.labels.classes import ClassList
from engine.select import thresholds
from engine.select.blocks import Counts
from engine.select.equality import fields_equal
from engine.select.histogram import Histogram
from engine.select.published import Thinning, thinning
from engine.select.quota import quotas
from engine.select.scores import Half, probability, tie_hash
from engine.settings.select import SelectSettings

ADAMATCH_SHARE = 0.9
"""AdaMatch's published share of the labelled images' mean confidence."""


@dataclass(frozen=True, eq=False)
class PassStatistics:
    """What is known of all predictions before any is selected."""

    best: Histogram
    """Of each image's best class: its score."""
    stored: Histogram | None = None
    """Of all stored classes: their log-odds; FreeMatch needs it."""
    labelled_confidence: npt.NDArray[np.floating] | None = None
    """The teacher's confidence on labelled images (N,); AdaMatch needs it."""


@dataclass(frozen=True, eq=False)
class CutRule:
    """A row passes with a score strictly above its class's cut, and where a draw decides, when it is drawn."""

    cuts: Half
    """Float16 scores (C,)."""
    quota: Counts | None
    """K of each class (C,); None where all that passes is kept."""
    soft: thresholds.SoftWeight | None = None
    thinning: Thinning | None = None

    def __eq__(self, other: object) -> bool:
        return fields_equal(self, other)

    @property
    def thresholds(self) -> npt.NDArray[np.float64]:
        """The cuts as probabilities (C,)."""
        if self.thinning is not None:
            return self.thinning.threshold
        return probability(self.cuts)

    def drawn(
        self,
        classes: npt.NDArray[np.unsignedinteger],
        scores: Half,
        shard: npt.NDArray[np.int32],
        row: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.bool_] | None:
        """Which of N rows the draw keeps; None when there is none. The coin is a hash of the address, the same for any split."""
        if self.thinning is not None:
            return self.thinning.counts(classes, scores, shard, row) > 0
        if self.soft is not None:
            # the hash itself breaks ties: rows that tie would all have won the coin, so the coin is another mixing
            coin = (tie_hash(shard, row) * np.uint64(0xD1B54A32D192ED03)) / np.float64(2**64)
            return coin < self.soft(probability(scores))
        return None


def make_rule(settings: SelectSettings, classes: ClassList, seen: PassStatistics | None = None) -> CutRule:
    """The rule. Raises ValueError for a threshold of an unknown class. `seen`: needed when `settings.needs_histogram`."""
    fixed = thresholds.score_cuts(_fixed(settings, classes))
    quota = quotas(settings, classes)
    if not settings.needs_histogram:
        return CutRule(fixed, quota)
    assert seen is not None, "settings that need a histogram are given one"
    if settings.balance == "published" and settings.per_class is not None:
        thinned = thinning(seen.best, settings.per_class, settings.threshold)
        lowest = np.full(len(classes), -np.inf, np.float16)
        return CutRule(lowest, quota, thinning=thinned)
    if settings.cut == "softmatch":
        return CutRule(fixed, quota, soft=thresholds.softmatch(seen.best))
    found = fixed if settings.cut == "fixed" else _ADAPTIVE[settings.cut](settings, seen)
    if settings.cut not in ("fixed", "flexmatch"):
        found = np.maximum(found, fixed)
    if settings.is_bounded:
        found = thresholds.bounded(found, seen.best, settings.at_least, settings.at_most)
    return CutRule(found, quota)


def _fixed(settings: SelectSettings, classes: ClassList) -> npt.NDArray[np.float64]:
    """The threshold of each class (C,) as it was set."""
    if unknown := [name for name in settings.thresholds if name not in classes.names]:
        known = ", ".join(classes.names[:10])
        raise ValueError(f"select.thresholds: no class is called {', '.join(unknown)}; the classes are {known} …")
    return np.array([settings.thresholds.get(name, settings.threshold) for name in classes.names])


def _quantile(settings: SelectSettings, seen: PassStatistics) -> Half:
    assert settings.share is not None, "refused by the settings"
    return thresholds.quantile(seen.best, settings.share)


def _flexmatch(settings: SelectSettings, seen: PassStatistics) -> Half:
    return thresholds.score_cuts(thresholds.flexmatch(seen.best, settings.threshold))


def _freematch(_: SelectSettings, seen: PassStatistics) -> Half:
    assert seen.stored is not None, "counted beside the best"
    return thresholds.score_cuts(thresholds.freematch(seen.best, seen.stored))


def _adamatch(settings: SelectSettings, seen: PassStatistics) -> Half:
    if seen.labelled_confidence is None:
        raise ValueError(
            "select.cut=adamatch compares with the confidence on labelled images, which this job does not have:"
            " select inside jobs.self_train, or take another cut"
        )
    cut = thresholds.adamatch(seen.labelled_confidence, settings.share or ADAMATCH_SHARE)
    return thresholds.score_cuts(np.full(seen.best.num_classes, cut))


_ADAPTIVE: dict[str, Callable[[SelectSettings, PassStatistics], Half]] = {
    "quantile": _quantile,
    "flexmatch": _flexmatch,
    "freematch": _freematch,
    "adamatch": _adamatch,
}
