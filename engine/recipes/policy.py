"""Guard rails: after a generation, continue, stop, or keep the teacher, with a named reason.

Self-training drifts when a student repeats its teacher's errors with more confidence. A decision is a value, taken only on
statistically significant evidence; the recipe alone acts on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.metrics.churn import Churn
from engine.metrics.interval import Interval, wilson
from engine.metrics.paired import PairedTest
from engine.settings.run import GuardSettings

Action = Literal["continue", "stop", "keep_teacher"]
Reason = Literal[
    "student_better",
    "student_not_worse",
    "student_not_measured",
    "student_worse",
    "better_than_control",
    "worse_than_control",
    "student_not_comparable",
    "below_larger_teacher",
    "more_overconfident",
    "classes_lost",
    "one_class",
    "nothing_selected",
    "labels_settled",
]


USUAL = GuardSettings()
ACTIONS: dict[Action, str] = {"continue": "continue", "stop": "stop", "keep_teacher": "keep the teacher"}
"""The actions as printed."""


@dataclass(frozen=True)
class Evidence:
    """Measurements of a student and its teacher after a generation; None where not measured."""

    student_against_teacher: PairedTest | None
    """Paired test on the validation images, the teacher first."""
    selected: npt.NDArray[np.int64] | None = None
    """Number of pseudo-labels per class (C,) that the student was trained on; None for one that learned true labels alone."""
    selected_before: npt.NDArray[np.int64] | None = None
    """The same for the previous generation."""
    churn: Churn | None = None
    """Changes of pseudo-labels since the previous generation."""
    gap_change: Interval | None = None
    """Increase of overconfidence from teacher to student (`metrics.calibration.gap_change`)."""
    level: float = 0.05
    """Significance level of the tests, which both intervals have."""
    same_network: bool = True
    """Whether student and teacher have one architecture. A student of another size is judged by the control, not by its teacher."""
    student_against_control: PairedTest | None = None
    """The same test, a model of the student's architecture that learned the labels alone first."""
    names: Sequence[str] = ()
    """Class names in index order, for the log."""


@dataclass(frozen=True)
class GuardDecision:
    """An action, its reason as a code, and the sentence for the log."""

    action: Action
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Verdict:
    """A decision, whether the recipe obeys it, and the evidence."""

    decision: GuardDecision
    obeyed: bool
    """A decision that is not obeyed is a warning."""
    selected_share: float | None = None
    """Pseudo-labels divided by images predicted."""
    churn: float | None = None
    """Share of the images selected in both generations whose class changed."""
    difference: Interval | None = None
    """Score of the student minus that of the teacher."""
    kept: str | None = None
    """The model that is kept when the student is discarded."""

    @property
    def rejects(self) -> bool:
        """Whether the student is discarded."""
        return self.obeyed and self.decision.action == "keep_teacher"

    @property
    def sentence(self) -> str:
        """The line for the log."""
        advice = "" if self.obeyed or self.decision.action == "continue" else " (warning only, not obeyed)"
        return f"{ACTIONS[self.decision.action]}, {self.decision.detail}{advice}"


def judge_generation(evidence: Evidence, limits: GuardSettings = USUAL) -> GuardDecision:
    """The decision after a generation: the first rule that applies, most severe first.

    An equally good and equally calibrated student of its teacher's architecture is rejected by the two tests with probability `evidence.level` at
    most: each is two-sided at that level, and one of its sides rejects.
    """
    if evidence.selected is not None and not evidence.selected.any():
        return GuardDecision("stop", "nothing_selected", "no image was selected: lower select.threshold")
    if not evidence.same_network:
        return _judge_other_network(evidence)
    test = evidence.student_against_teacher
    if test is not None and test.significant and test.difference.value < 0:
        return GuardDecision("keep_teacher", "student_worse", f"student worse by {_shortfall(test)}")
    if test is not None and test.significant:
        return GuardDecision("continue", "student_better", f"student better by {_gain(test)}")
    if evidence.selected is not None and evidence.selected_before is not None:
        lost = np.flatnonzero((evidence.selected == 0) & (evidence.selected_before >= limits.lost_class))
        if len(lost):
            detail = f"{len(lost)} classes have no pseudo-labels left ({_named(lost, evidence.names)}), and the student is not better"
            return GuardDecision("keep_teacher", "classes_lost", detail)
    if evidence.selected is not None and len(evidence.selected) > 1 and (evidence.selected > 0).sum() == 1:
        only = np.flatnonzero(evidence.selected)
        detail = (
            f"all {int(evidence.selected.sum()):,} pseudo-labels are of one class, {_named(only, evidence.names)}: nothing is learned of the others."
            " Set select.per_class or select.balance, or raise the threshold of that class"
        )
        return GuardDecision("keep_teacher", "one_class", detail)
    if evidence.gap_change is not None and evidence.gap_change.low > 0:
        detail = f"student more overconfident by {points(evidence.gap_change, evidence.level)} and not better"
        return GuardDecision("keep_teacher", "more_overconfident", detail)
    churn = evidence.churn
    if churn is not None and churn.both and wilson(churn.changed, churn.both, 1 - limits.level)[1] < limits.settled:
        detail = (
            f"only {churn.rate:.2%} of {churn.both:,} images changed class: another generation would repeat this one"
        )
        return GuardDecision("stop", "labels_settled", detail)
    if test is None:
        detail = "student not compared with its teacher: no validation images. Set data.validation for a verdict"
        return GuardDecision("continue", "student_not_measured", detail)
    detail = f"student not significantly worse (difference {points(test.difference, test.level)})"
    return GuardDecision("continue", "student_not_worse", detail)


def _judge_other_network(evidence: Evidence) -> GuardDecision:
    """A student of another architecture: a smaller one below its larger teacher is what distillation is for, and no failure."""
    control, teacher = evidence.student_against_control, evidence.student_against_teacher
    if control is not None and control.significant and control.difference.value < 0:
        detail = f"student worse than the same network on labels alone by {_shortfall(control)}"
        return GuardDecision("keep_teacher", "worse_than_control", detail)
    against = ""
    if control is not None:
        known = (
            f"better by {_gain(control)}"
            if control.significant
            else f"difference {points(control.difference, control.level)}"
        )
        against = f"; against the same network on labels alone: {known}"
    if teacher is not None and teacher.significant and teacher.difference.value < 0:
        detail = f"student is another network than its teacher and {_shortfall(teacher)} below it: it is kept, and teaches no other{against}"
        return GuardDecision("stop", "below_larger_teacher", detail)
    if teacher is not None and teacher.significant:
        return GuardDecision(
            "continue", "student_better", f"student better than its teacher by {_gain(teacher)}{against}"
        )
    if control is not None and control.significant:
        return GuardDecision("continue", "better_than_control", f"student of another network{against}")
    if control is not None:
        return GuardDecision("continue", "student_not_worse", f"student of another network{against}")
    detail = "student is another network than its teacher: not judged. Set recipe.control=labels_only for a comparison at its own size"
    return GuardDecision("continue", "student_not_comparable", detail)


def _gain(test: PairedTest) -> str:
    return f"{points(test.difference, test.level)}, p = {test.p_value:.2g}"


def _shortfall(test: PairedTest) -> str:
    return f"{points(-test.difference, test.level)}, p = {test.p_value:.2g}"


def points(interval: Interval, level: float = 0.05) -> str:
    """A difference of shares in percentage points: `4.0 points (95 % CI 1.1 to 6.9)`."""
    return f"{100 * interval.value:.1f} points ({100 * (1 - level):.3g} % CI {100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _named(classes: npt.NDArray[np.int64], names: Sequence[str]) -> str:
    """The first five classes by name, where names are known."""
    shown = [names[index] if index < len(names) else f"class {index}" for index in classes[:5].tolist()]
    return ", ".join(shown) + (", …" if len(classes) > 5 else "")
