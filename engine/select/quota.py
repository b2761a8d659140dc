"""How many rows a class may keep: K each, or in proportion to a declared prior."""

import numpy as np
import numpy.typing as npt

from engine.labels.classes import ClassList
from engine.select.blocks import Counts
from engine.settings.select import SelectSettings


def weights(settings: SelectSettings, classes: ClassList) -> npt.NDArray[np.float64]:
    """What each class counts (C,). Raises ValueError for a prior that does not name the classes."""
    if not settings.prior:
        return np.ones(len(classes))
    unknown = [name for name in settings.prior if name not in classes.names]
    missing = [name for name in classes.names if name not in settings.prior]
    if unknown or missing:
        wrong = f"no class is called {', '.join(unknown[:10])}" if unknown else f"{', '.join(missing[:10])} has none"
        raise ValueError(f"select.prior: {wrong}; give every class its weight, 0 for one that is not wanted")
    return np.array([settings.prior[name] for name in classes.names])


def quotas(settings: SelectSettings, classes: ClassList) -> Counts | None:
    """K of each class (C,), together `per_class` x C; None where all that passes is kept.

    Largest remainders round a prior, the first class first among equals.
    """
    if settings.per_class is None or settings.balance == "published":
        return None
    total, weight = settings.per_class * len(classes), weights(settings, classes)
    exact = weight * total / weight.sum()
    whole = np.floor(exact + 1e-9).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: total - int(whole.sum())]] += 1
    return whole


def truncated(found: Counts, weight: npt.NDArray[np.float64]) -> Counts:
    """What `balance=truncate` leaves of the rows found (C,): the proportion of `weight` (C,) as far as the scarcest class that has
    any allows. Without a prior, the smallest class's number each."""
    there = (found > 0) & (weight > 0)
    if not there.any():
        return np.zeros_like(found)
    allowed = np.floor((found[there] / weight[there]).min() * weight + 1e-9).astype(np.int64)
    return np.minimum(found, allowed)
