"""Which images the page shows: the best and the worst accepted of some classes, and those that just failed the cut. Addresses and scores only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.ground.steps import Output, Store
from engine.report.page.sample import batches, sample_parts
from engine.select.scores import best_score, classes_of
from engine.settings.select import RankBy

MOST_PARTS = 256
CLOSE = 1e-6
"""The worst image that was kept is not below the limit: scores went through a probability and back."""
COLUMNS = ["shard", "row", "class", "score"]


@dataclass(frozen=True)
class Candidate:
    """An image to show, with its class and its score as stored."""

    shard: int
    row: int
    class_index: int
    score: float

    @property
    def address(self) -> tuple[int, int]:
        return self.shard, self.row


@dataclass(frozen=True)
class Accepted:
    """The best and the worst images that were kept for a class."""

    class_index: int
    best: tuple[Candidate, ...]
    worst: tuple[Candidate, ...]


def accepted(selection: Output, store: Store, classes: Sequence[int], most: int) -> tuple[tuple[Accepted, ...], str]:
    """The `most` best and worst images of each of some classes, read piece by piece, and what they are of where that is not everything."""
    sample = sample_parts(selection, store, MOST_PARTS)
    wanted = np.array(sorted(classes), np.int64)
    empty = (np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    best: dict[int, tuple[npt.NDArray, ...]] = dict.fromkeys(wanted.tolist(), empty)
    worst = dict(best)
    for table in batches(sample, store.fs, COLUMNS):
        own = table["class"].to_numpy().astype(np.int64)
        mine = np.flatnonzero(np.isin(own, wanted))
        if not len(mine):
            continue
        mine = mine[np.argsort(own[mine], kind="stable")]
        shard, row, score = (table[name].to_numpy()[mine] for name in ("shard", "row", "score"))
        found, starts = np.unique(own[mine], return_index=True)
        for index, start, end in zip(found.tolist(), starts, [*starts[1:], len(mine)], strict=True):
            new = shard[start:end], row[start:end], score[start:end].astype(np.float32)
            best[index] = _keep(best[index], new, most, -1)
            worst[index] = _keep(worst[index], new, most, 1)
    chosen = tuple(
        Accepted(index, _candidates(best[index], index), _rest(worst[index], best[index], index)) for index in classes
    )
    return tuple(one for one in chosen if one.best), sample.note


def just_below(
    predictions: Output, store: Store, limits: npt.NDArray[np.float64], score: RankBy, most: int
) -> tuple[tuple[Candidate, ...], str]:
    """The images that lie closest below the limit of their best class, `limits` (C,) as scores: those that a slightly lower cut would add."""
    sample = sample_parts(predictions, store)
    found: list[Candidate] = []
    gaps: list[float] = []
    for table in batches(sample, store.fs):
        own = classes_of(table)[:, 0].astype(np.int64)
        scores = best_score(table, score).astype(np.float64)
        gap = limits[own] - scores
        gap[~(gap >= 0) | ~np.isfinite(gap)] = np.inf
        nearest = np.argsort(gap, kind="stable")[:most]
        shard, row = (table[name].to_numpy() for name in ("shard", "row"))
        for place in nearest[np.isfinite(gap[nearest])].tolist():
            found.append(Candidate(int(shard[place]), int(row[place]), int(own[place]), float(scores[place])))
            gaps.append(float(gap[place]))
        order = np.argsort(gaps, kind="stable")[:most].tolist()
        found, gaps = [found[i] for i in order], [gaps[i] for i in order]
    return tuple(found), sample.note


def _keep(old: tuple[npt.NDArray, ...], new: tuple[npt.NDArray, ...], most: int, sign: int) -> tuple[npt.NDArray, ...]:
    """The `most` rows with the highest (sign -1) or lowest score of both."""
    shard, row, score = (np.concatenate(pair) for pair in zip(old, new, strict=True))
    order = np.argsort(sign * score, kind="stable")[:most]
    return shard[order], row[order], score[order]


def _candidates(kept: tuple[npt.NDArray, ...], index: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(int(shard), int(row), index, float(score)) for shard, row, score in zip(*kept, strict=True))


def _rest(worst: tuple[npt.NDArray, ...], best: tuple[npt.NDArray, ...], index: int) -> tuple[Candidate, ...]:
    """The worst that are not among the best: a class may have few images."""
    shown = {one.address for one in _candidates(best, index)}
    return tuple(one for one in _candidates(worst, index) if one.address not in shown)


def limits_of(classes: Sequence[dict[str, Any]], score: RankBy) -> npt.NDArray[np.float64]:
    """The score (C,) that an image had to exceed: the cut of its class, or where the quota was full the worst image that was kept."""
    limits = np.array([one["cut"] for one in classes], np.float64)
    lowest = np.array([np.nan if one["lowest"] is None else one["lowest"] for one in classes], np.float64)
    is_full = np.array([one["kept"] < one["available"] for one in classes]) & np.isfinite(lowest)
    limits[is_full] = lowest[is_full]
    if score != "energy":
        with np.errstate(divide="ignore"):
            limits = np.log(limits) - np.log1p(-limits)
    return np.where(is_full, limits - CLOSE * np.maximum(1, np.abs(limits)), limits)
