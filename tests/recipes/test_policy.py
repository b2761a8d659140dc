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
        (Evidence(compared(20, 80), np.array([0, 300, 0])), "continue", "student_better"),
        (Evidence(compared(52, 48), np.array([0, 300, 0])), "keep_teacher", "one_class"),
        (Evidence(None, np.array([300])), "continue", "student_not_measured"),
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


WORSE, SAME, BETTER = compared(80, 20), compared(52, 48), compared(20, 80)


@pytest.mark.parametrize(
    ("teacher", "control", "action", "reason"),
    [
        (WORSE, None, "stop", "below_larger_teacher"),
        (WORSE, BETTER, "stop", "below_larger_teacher"),
        (WORSE, WORSE, "keep_teacher", "worse_than_control"),
        (SAME, None, "continue", "student_not_comparable"),
        (SAME, BETTER, "continue", "better_than_control"),
        (SAME, SAME, "continue", "student_not_worse"),
        (BETTER, None, "continue", "student_better"),
        (None, None, "continue", "student_not_comparable"),
    ],
)
def test_a_student_of_another_size_is_judged_by_its_own_size(
    teacher: PairedTest | None, control: PairedTest | None, action: str, reason: str
) -> None:
    """Below a larger teacher is what a smaller student is expected to be; only labels alone at its own size can reject it."""
    gap = Interval(0.1, 0.05, 0.15)
    evidence = Evidence(teacher, SELECTED, gap_change=gap, same_network=False, student_against_control=control)
    decision = judge_generation(evidence)
    assert (decision.action, decision.reason) == (action, reason)
    assert decision.detail


def test_a_model_without_pseudo_labels_is_not_said_to_lack_them() -> None:
    assert judge_generation(Evidence(compared(20, 80))).reason == "student_better"


@pytest.mark.parametrize("generations", [1, 3])
def test_an_equally_good_student_is_seldom_rejected(generations: int) -> None:
    """2,000 runs of students as good and as well calibrated as their teachers: at most `level` of them reject one, whatever their length."""
    random = np.random.default_rng(generations)
    level, runs, images, rejected = 0.05, 2000, 400, 0
    for _ in range(runs):
        for _ in range(generations):
            chance = random.uniform(
                0.5, 1, images
            )  # correct answers of both are correlated, as those of real models are
            shared = random.random(images) < 0.5
            draws = random.random((2, images))
            draws[1, shared] = draws[0, shared]
            right = draws < chance
            each = level / generations
            gap = gap_change(chance, right[0], chance, right[1], each)
            test = mcnemar(right[0], right[1], each)
            if judge_generation(Evidence(test, SELECTED, gap_change=gap, level=each)).action == "keep_teacher":
                rejected += 1
                break
    assert rejected / runs < level + 2 * np.sqrt(level * (1 - level) / runs)


def test_gap_change_is_paired() -> None:
    """A student 0.2 more confident and no more accurate is 0.2 more overconfident."""
    right = np.random.default_rng(0).random(400) < 0.7
    confidence = np.random.default_rng(1).random(400) * 0.5
    change = gap_change(confidence, right, confidence + 0.2, right)
    assert change.value == pytest.approx(0.2)
    assert change.high - change.low < 1e-6
