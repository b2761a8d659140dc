"""Guard rails: the decision for each kind of evidence, without a cluster."""

import numpy as np
import pytest

from engine.metrics.calibration import gap_change
from engine.metrics.churn import Churn
from engine.metrics.interval import Interval
from engine.metrics.paired import PairedTest, mcnemar
from engine.recipes.policy import Evidence, judge_generation

SELECTED = np.array([100, 100, 100])


def compared(only_teacher: int, only_student: int) -> PairedTest:
    """The paired test of a teacher and a student that are both right on 1,000 further images."""
    teacher = np.repeat([True, False, True], [only_teacher, only_student, 1000])
    student = np.repeat([False, True, True], [only_teacher, only_student, 1000])
    return mcnemar(teacher, student)


@pytest.mark.parametrize(
    ("evidence", "action", "reason"),
    [
        (Evidence(compared(20, 80), SELECTED), "continue", "student_better"),
        (Evidence(compared(80, 20), SELECTED), "keep_teacher", "student_worse"),
        (Evidence(compared(52, 48), SELECTED), "continue", "student_not_worse"),
        (Evidence(None, SELECTED), "continue", "student_not_measured"),
        (Evidence(compared(20, 80), SELECTED * 0), "stop", "nothing_selected"),
        (Evidence(None, np.array([100, 0, 9]), SELECTED), "keep_teacher", "classes_lost"),
        (Evidence(None, np.array([100, 0, 9]), np.array([90, 5, 9])), "continue", "student_not_measured"),
        (Evidence(compared(20, 80), np.array([100, 0, 9]), SELECTED), "continue", "student_better"),
        (Evidence(None, SELECTED, gap_change=Interval(0.1, 0.05, 0.15)), "keep_teacher", "more_overconfident"),
        (Evidence(None, SELECTED, gap_change=Interval(0.1, -0.05, 0.25)), "continue", "student_not_measured"),
        (Evidence(None, SELECTED, churn=Churn(10_000, 20, 0, 0)), "stop", "labels_settled"),
        (Evidence(None, SELECTED, churn=Churn(100, 0, 0, 0)), "continue", "student_not_measured"),
    ],
)
def test_decision(evidence: Evidence, action: str, reason: str) -> None:
    """Only what is significant moves the decision; the gravest finding decides."""
    decision = judge_generation(evidence)
    assert (decision.action, decision.reason) == (action, reason)
    assert decision.detail


def test_gap_change_is_paired() -> None:
    """A student 0.2 more confident and no more accurate is 0.2 more overconfident."""
    right = np.random.default_rng(0).random(400) < 0.7
    confidence = np.random.default_rng(1).random(400) * 0.5
    change = gap_change(confidence, right, confidence + 0.2, right)
    assert change.value == pytest.approx(0.2)
    assert change.high - change.low < 1e-6
