"""What a selection kept of every class, and what a person should know about it before training on it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

NAMED = 8
"""Classes named in a warning before it says how many more there are."""


@dataclass(frozen=True)
class SelectReport:
    """Per class, arrays (C,): how much was there, how much was kept, how often it is drawn, where the cut fell."""

    names: tuple[str, ...]
    num_images: int
    """Images that were looked at."""
    threshold: float
    quota: Counts | None
    """K of each class (C,)."""
    per_class: int | None
    balance: str
    available: Counts
    """Images above the threshold; one that may be kept for several classes counts for each."""
    kept: Counts
    copies: Counts
    """Images an epoch draws, duplicates counted."""
    lowest: npt.NDArray[np.float64]
    """Score of the worst image kept as a probability (score=energy: as it is); NaN where none was."""
    cut: npt.NDArray[np.float64]
    """What a score had to exceed, as a probability; 1 where nothing could pass."""

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the classes for which nothing passed the threshold."""
        wanted = self.quota if self.quota is not None else np.ones_like(self.available)
        return self._names((self.available == 0) & (wanted > 0))

    @property
    def short(self) -> tuple[str, ...]:
        """Names of the classes that have fewer images above the threshold than were asked for, but some."""
        wanted = self.quota if self.quota is not None else self.per_class
        return self._names((self.available > 0) & (self.available < wanted)) if wanted is not None else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about classes with too little, with counts and the remedy."""
        said = []
        if self.empty:
            said.append(
                f"{len(self.empty)} of {len(self.names)} classes have no image above {self._cuts} and"
                f" get no pseudo-labels: {_listed(self.empty)}. A lower threshold or a larger pool would help."
            )
        if self.short and self.per_class:
            there = dict(zip(self.names, self.available.tolist(), strict=True))
            having = [f"{name} has {there[name]}{self._of(name)}" for name in self.short]
            asked = f"per_class={self.per_class}" if not self._uneven else "its share by select.prior"
            what = "are repeated to fill it" if self.balance in ("duplicate", "published") else "stay below it"
            said.append(
                f"{asked} is more than exists above {self._cuts} for {len(self.short)} classes, which {what}: {_listed(having)}."
            )
        if self.balance == "truncate" and self.kept.any():
            lost = np.minimum(self.available, self.quota if self.quota is not None else self.available) - self.kept
            if lost.sum():
                whole = np.where((lost == 0) & (self.kept > 0), self.available, np.iinfo(np.int64).max)
                name, count = self.names[int(np.argmin(whole))], self.kept[int(np.argmin(whole))]
                said.append(
                    f"balance=truncate cuts every class to what the {count} of the scarcest, {name}, allow, and leaves out {lost.sum()}."
                )
        return tuple(said)

    @property
    def _uneven(self) -> bool:
        """Whether a prior gives the classes different quotas."""
        return self.quota is not None and bool((self.quota != self.quota[0]).any())

    def _of(self, name: str) -> str:
        """Of how many, where that differs from class to class."""
        return f" of {self.quota[self.names.index(name)]}" if self._uneven and self.quota is not None else ""

    @property
    def _cuts(self) -> str:
        low, high = float(self.cut.min()), float(self.cut.max())
        return (
            f"threshold {self.threshold:g}" if low == high else f"the cuts of their classes, {low:.3g} to {high:.3g},"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; unknown probabilities are null."""
        return {
            "images": self.num_images,
            "threshold": self.threshold,
            "per_class": self.per_class,
            "balance": self.balance,
            "available": int(self.available.sum()),
            "kept": int(self.kept.sum()),
            "copies": int(self.copies.sum()),
            "warnings": list(self.warnings),
            "classes": [
                {
                    "name": name,
                    "available": int(available),
                    "kept": int(kept),
                    "copies": int(copies),
                    **({"quota": int(self.quota[place])} if self.quota is not None else {}),
                    "lowest": None if np.isnan(lowest) else float(lowest),
                    "cut": float(cut),
                }
                for place, (name, available, kept, copies, lowest, cut) in enumerate(
                    zip(self.names, self.available, self.kept, self.copies, self.lowest, self.cut, strict=True)
                )
            ],
        }

    def _names(self, chosen: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self.names[index] for index in np.flatnonzero(chosen))


def _listed(words: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more
