"""How many images may be rejected before a step fails, counted from the parts of a step or image by image."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.ground.steps import Part

HANDFUL = 10
"""Rejected images that no limit counts while there may be more to come."""
SHOWN = 5
"""Reasons that a message names."""


class TooManyRejectsError(ValueError):
    """More images were rejected than the limit allows."""


def is_excluded(reason: str) -> bool:
    """Whether an image was left out on purpose and is not rejected."""
    return reason.startswith("excluded")


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Number of images per reason; what the decoder said of each stands in the quarantine alone."""
    return dict(Counter(reason if is_excluded(reason) else reason.partition(":")[0] for reason in reasons))


@dataclass(frozen=True)
class RejectLimit:
    """Rejected images per 100 seen above which a step fails; excluded images are not seen."""

    percent: float
    where: str
    """The step or stream, as the message names it."""
    remedy: str
    """Where the rejected images are listed, and what to do."""

    @classmethod
    def of_step(cls, percent: float, title: str, step: str) -> "RejectLimit":
        """The limit of the step called `step`, which lists what it rejects in its quarantine."""
        return cls(
            percent,
            title,
            f"`python -m jobs.status STORE RUN --rejected` lists keys and reasons ({step}/quarantine/). Fix them or raise the limit.",
        )

    def check(self, seen: int, reasons: Mapping[str, int]) -> None:
        """Raise TooManyRejectsError when too many of `seen` images were rejected; `reasons`: number of images of each reason."""
        rejected = Counter({reason: count for reason, count in reasons.items() if not is_excluded(reason)})
        total = rejected.total()
        if total * 100 > self.percent * seen:
            named = ", ".join(f"{count:,} {reason}" for reason, count in rejected.most_common(SHOWN))
            raise TooManyRejectsError(
                f"{self.where}: {total:,} of {seen:,} images rejected ({100 * total / seen:.1f} %, limit data.max_rejected_percent="
                f"{self.percent:g}): {named}. {self.remedy}"
            )


class RejectBudget:
    """Counts images seen and rejected, and fails as soon as they exceed the limit (and are more than a handful)."""

    def __init__(self, limit: RejectLimit, earlier: Iterable[Part] = ()) -> None:
        self.limit = limit
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
        """Count a part's images. Raises TooManyRejectsError."""
        self._count(part)
        self._enforce()

    def see(self, reason: str | None) -> None:
        """Count one image, with the reason where it is rejected. Raises TooManyRejectsError."""
        self.seen += 1
        if reason is not None:
            self.rejected += 1
            self.reasons[reason] += 1
            self._enforce()

    def _enforce(self) -> None:
        if self.rejected > HANDFUL:
            self.check()

    def check(self) -> None:
        """Raise TooManyRejectsError when the limit is exceeded."""
        self.limit.check(self.seen, self.reasons)

    def summary(self) -> dict[str, Any]:
        self.check()
        return {
            "images": self.seen - self.rejected,
            "rejected": self.rejected,
            "excluded": self.excluded,
            "reasons": dict(self.reasons),
        }
