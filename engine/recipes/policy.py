"""Guard rails: after a generation, go on, stop, or keep the old teacher - and why.

Self-training drifts when a student repeats its teacher's mistakes with more confidence. A decision is a value with a named
reason, taken only on what is statistically significant; the recipe alone acts on it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.metrics.churn import Churn
from engine.metrics.interval import Interval, wilson
from engine.metrics.paired import PairedTest
from engine.settings.run import GuardSettings

Action = Literal["go on", "stop", "keep the old teacher"]
Reason = Literal[
    "student better",
    "student not worse",
    "student worse",
    "more overconfident",
    "classes lost",
    "nothing selected",
    "labels settled",
]


USUAL = GuardSettings()


@dataclass(frozen=True)
class Evidence:
    """What is known when a student has been fitted and evaluated beside its teacher; None where it was not measured."""

    student_against_teacher: PairedTest | None
    """On the validation images, the teacher first."""
    selected: npt.NDArray[np.int64]
    """Pseudo-labels of each class (C,) that the student learned from."""
    selected_before: npt.NDArray[np.int64] | None = None
    """Those of the generation before."""
    churn: Churn | None = None
    """From the generation before to this one."""
    gap_change: Interval | None = None
    """How much more overconfident the student is than its teacher: see `metrics.calibration.gap_change`."""


@dataclass(frozen=True)
class GuardDecision:
    """What to do and its named reason; `detail` is the sentence for the log."""

    action: Action
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Verdict:
    """A decision, whether the recipe obeys it, and the numbers on which it stands."""

    decision: GuardDecision
    obeyed: bool
    """A decision that is not obeyed is a warning."""
    selected_share: float | None = None
    """Pseudo-labels over images labelled."""
    churn: float | None = None
    """Share of the images labelled in both generations whose class changed."""
    difference: Interval | None = None
    """Score of the student minus that of the teacher."""

    @property
    def rejects(self) -> bool:
        """Whether the student is thrown away."""
        return self.obeyed and self.decision.action == "keep the old teacher"

    @property
    def sentence(self) -> str:
        """The line for the log."""
        advice = "" if self.obeyed or self.decision.action == "go on" else " (a warning only: not obeyed)"
        return f"{self.decision.action}: {self.decision.detail}{advice}"


def judge_generation(evidence: Evidence, limits: GuardSettings = USUAL) -> GuardDecision:
    """The decision after a generation; the first rule that applies, the gravest first."""
    if not evidence.selected.any():
        return GuardDecision(
            "stop", "nothing selected", "no image passed the threshold: there is nothing to learn from"
        )
    test = evidence.student_against_teacher
    significant = test is not None and test.significant(limits.level)
    if test is not None and significant and test.difference.value < 0:
        detail = f"the student is worse than its teacher by {test.difference} (p = {test.p_value:.2g})"
        return GuardDecision("keep the old teacher", "student worse", detail)
    if test is not None and significant:
        detail = f"the student is better than its teacher by {test.difference} (p = {test.p_value:.2g})"
        return GuardDecision("go on", "student better", detail)
    if evidence.selected_before is not None:
        lost = np.flatnonzero((evidence.selected == 0) & (evidence.selected_before >= limits.lost_class))
        if len(lost):
            detail = f"{len(lost)} classes lost all their pseudo-labels, first class {lost[0]}, and the student is not better"
            return GuardDecision("keep the old teacher", "classes lost", detail)
    if evidence.gap_change is not None and evidence.gap_change.low > 0:
        detail = f"the student is more overconfident than its teacher by {evidence.gap_change} and not better"
        return GuardDecision("keep the old teacher", "more overconfident", detail)
    churn = evidence.churn
    if churn is not None and churn.both and wilson(churn.changed, churn.both, 1 - limits.level)[1] < limits.settled:
        detail = f"only {churn.rate:.2%} of {churn.both} images changed their label: another generation would repeat this one"
        return GuardDecision("stop", "labels settled", detail)
    told = f"difference {test.difference}" if test is not None else "not measured"
    return GuardDecision("go on", "student not worse", f"no significant change for the worse ({told})")
