"""Which settings mattered: how much of the differences between trials each setting accounts for by itself.

Only trials of one cohort are compared, so that a later generation's gain is not taken for a setting's; cohorts are pooled by their size. With few
trials a setting that does nothing accounts for about 1/(trials - 1) by chance: `chance` says so beside each figure.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.search.space import Space
from engine.search.trials import TrialRecord


@dataclass(frozen=True)
class Importance:
    """`share`: of the variance of the accuracies (of their ranks, for numbers), 0 to 1; `chance`: what a setting without effect shows on average;
    `trials`: compared."""

    path: str
    share: float
    chance: float
    trials: int


def importances(space: Space, records: list[TrialRecord]) -> list[Importance]:
    """One a setting, the greatest share first. Settings that differ in fewer than three trials of every cohort are left out."""
    found = []
    for path, dimension in space.items():
        shares, weights, chances = [], [], []
        for cohort in sorted({record.trial.cohort for record in records}):
            pairs = [
                (record.trial.values[path], record.value)
                for record in records
                if record.trial.cohort == cohort and record.value is not None and path in record.trial.values
            ]
            if len(pairs) < 3 or len({str(setting) for setting, _ in pairs}) < 2:
                continue
            values = np.array([value for _, value in pairs])
            if dimension.values is not None:
                groups = [str(setting) for setting, _ in pairs]
                share, free = correlation_ratio(groups, values), len(set(groups)) - 1
            else:
                share, free = rank_correlation(np.array([float(setting) for setting, _ in pairs]), values) ** 2, 1
            shares.append(share)
            chances.append(min(1.0, free / (len(pairs) - 1)))
            weights.append(len(pairs))
        if weights:
            share, chance = (float(np.average(column, weights=weights)) for column in (shares, chances))
            found.append(Importance(path, share, chance, sum(weights)))
    return sorted(found, key=lambda one: -one.share)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two columns (n,); ties share their mean rank. 0 where one of them does not vary."""
    one, other = _ranks(first), _ranks(second)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def correlation_ratio(groups: list[str], values: np.ndarray) -> float:
    """Share of the variance of `values` (n,) that lies between the groups (eta squared). 0 where nothing varies."""
    total = float(((values - values.mean()) ** 2).sum())
    if total == 0:
        return 0.0
    names = np.array(groups)
    between = sum(
        (names == name).sum() * (values[names == name].mean() - values.mean()) ** 2 for name in sorted(set(groups))
    )
    return float(between / total)


def _ranks(column: np.ndarray) -> npt.NDArray[np.float64]:
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]
