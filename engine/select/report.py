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
    per_class: int | None
    balance: str
    available: Counts
    """Images above the threshold; one that may be kept for several classes counts for each."""
    kept: Counts
    copies: Counts
    """Images an epoch draws, duplicates counted."""
    lowest: npt.NDArray[np.float64]
    """Score of the worst image kept as a probability; NaN where none was."""
    cut: npt.NDArray[np.float64]
    """What a score had to exceed, as a probability; 1 where nothing could pass."""

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the classes for which nothing passed the threshold."""
        return self._names(self.available == 0)

    @property
    def short(self) -> tuple[str, ...]:
        """Names of the classes that have fewer images above the threshold than were asked for, but some."""
        return self._names((self.available > 0) & (self.available < self.per_class)) if self.per_class else ()

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
            having = [f"{name} has {there[name]}" for name in self.short]
            what = "are repeated to fill it" if self.balance in ("duplicate", "published") else "stay below it"
            said.append(
                f"per_class={self.per_class} is more than exists above {self._cuts} for"
                f" {len(self.short)} classes, which {what}: {_listed(having)}."
            )
        if self.balance == "truncate" and self.kept.any():
            smallest = int(np.argmin(np.where(self.kept > 0, self.available, np.iinfo(np.int64).max)))
            lost = int(
                np.minimum(self.available, self.per_class or self.available.max())[self.kept > 0].sum()
                - self.kept.sum()
            )
            if lost:
                name, count = self.names[smallest], self.kept[smallest]
                said.append(
                    f"balance=truncate cuts every class to the {count} of the smallest, {name}, and leaves out {lost}."
                )
        return tuple(said)

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
                    "lowest": None if np.isnan(lowest) else float(lowest),
                    "cut": float(cut),
                }
                for name, available, kept, copies, lowest, cut in zip(
                    self.names, self.available, self.kept, self.copies, self.lowest, self.cut, strict=True
                )
            ],
        }

    def _names(self, chosen: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        return tuple(self.names[index] for index in np.flatnonzero(chosen))


def _listed(words: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more
