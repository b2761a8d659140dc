"""How many images may be unusable before a step fails, counted from the parts of a labelling or image by image."""

from collections import Counter
from typing import Any

from engine.steps import Part


class TooManyRejectsError(ValueError):
    """More images were unusable than the budget allows."""


HANDFUL = 10
"""Unusable images that no budget counts while there may be more to come."""
IN_QUARANTINE = (
    "Their keys and reasons are in the step's quarantine/; mend them or raise the budget. What was labelled is kept."
)


class RejectBudget:
    """Counts unusable images and fails the run once they are more than `percent` of those seen (and more than a handful).

    `remedy`: the end of the error, where to find them and what to do.
    """

    def __init__(self, percent: float, earlier: Any = (), remedy: str = IN_QUARANTINE) -> None:
        self.percent, self.remedy = percent, remedy
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
        """Count a part's images."""
        self._count(part)
        self._enforce()

    def see(self, reason: str | None) -> None:
        """Count one image, with the reason where it is unusable."""
        self.seen += 1
        if reason is not None:
            self.rejected += 1
            self.reasons[reason] += 1
            self._enforce()

    def _enforce(self) -> None:
        if self.rejected > HANDFUL:
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
                f"{self.remedy}"
            )

    def summary(self) -> dict[str, Any]:
        self.check()
        return {
            "images": self.seen - self.rejected,
            "rejected": self.rejected,
            "excluded": self.excluded,
            "reasons": dict(self.reasons),
        }
