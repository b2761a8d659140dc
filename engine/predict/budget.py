"""How many images may be unusable before a labelling step fails, counted from its parts."""

from collections import Counter
from typing import Any

from engine.steps import Part


class TooManyRejectsError(ValueError):
    """More images were unusable than the budget allows."""


class RejectBudget:
    """Counts unusable images and fails the run once they are more than `percent` of those seen (and more than a handful)."""

    def __init__(self, percent: float, earlier: Any = ()) -> None:
        self.percent = percent
        self.seen = self.rejected = self.excluded = 0
        self.reasons: Counter[str] = Counter()
        for part in earlier:
            self._count(part)

    def _count(self, part: Part) -> None:
        self.rejected += part.stats["rejected"]
        self.excluded += part.stats["excluded"]
        self.seen += part.rows + part.stats["rejected"]
        self.reasons.update(part.stats["reasons"])

    def spend(self, part: Part) -> None:
        self._count(part)
        if self.rejected > 10 and self.rejected * 100 > self.percent * self.seen:
            self.check()

    def check(self) -> None:
        """Raise when the budget is exceeded."""
        if self.rejected * 100 > self.percent * self.seen:
            worst = ", ".join(
                f"{reason}: {count}"
                for reason, count in self.reasons.most_common(5)
                if not reason.startswith("excluded")
            )
            raise TooManyRejectsError(
                f"{self.rejected} of {self.seen} images could not be used ({worst}); the budget is data.max_rejected_percent={self.percent}. "
                "Their keys and reasons are in the step's quarantine/; mend them or raise the budget. What was labelled is kept."
            )

    def summary(self) -> dict[str, Any]:
        self.check()
        return {
            "images": self.seen - self.rejected,
            "rejected": self.rejected,
            "excluded": self.excluded,
            "reasons": dict(self.reasons),
        }
