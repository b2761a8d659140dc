"""The guard rails at work: evidence from what the store holds of two generations, and the one place that acts on the decision."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.evaluate.evaluate import rows_of
from engine.ground.progress import log_event
from engine.ground.steps import Output, read_output
from engine.metrics.churn import Churn, churn
from engine.metrics.score import Score
from engine.recipes.context import CONTROL, Generation, RecipeContext
from engine.recipes.policy import Evidence, Verdict, judge_generation
from engine.settings.run import GuardSettings, RunSettings
from engine.tasks.task import Task

PICKED = ["shard", "row", "class", "score"]
"""What is compared of two selections."""


def next_teacher(
    setup: RecipeContext, number: int, teacher: Generation, student: Generation, settles: bool = True
) -> Generation | None:
    """Who teaches after generation `number`; None ends the self-training. The verdict is said and stays with the student.

    A teacher that is kept must have something else to try: with the selection of this generation it would repeat it. `settles`: labels that no
    longer change mean that nothing does, as they do on a pool; on images that a model was trained on they seldom change at all.
    """
    evidence = _evidence(setup, teacher, student)
    if not settles:
        evidence = replace(evidence, churn=None)
    verdict = judge(setup, evidence, teacher, student)
    if setup.run.on_generation is not None:
        kept = {teacher.name: teacher, CONTROL: setup.control, None: student}[verdict.kept]
        setup.run.on_generation(number, _score(kept))
    if not verdict.obeyed or verdict.decision.action == "continue":
        return student
    if verdict.decision.action == "stop":
        return None
    settings = setup.settings
    same = number < settings.recipe.num_generations and _choices(settings, number + 1) == _choices(settings, number)
    return None if same else teacher


def judge_successor(setup: RecipeContext, before: Generation, after: Generation) -> Generation:
    """Of a model and what became of it without pseudo-labels: `after`, unless it is significantly worse on the validation images."""
    rows = _validation_rows(setup, before, after)
    level = level_of(setup)
    compared = setup.task.measure.paired(*rows, level) if rows is not None else None
    verdict = judge(setup, Evidence(compared, level=level), before, after)
    return before if verdict.rejects else after


def judge(setup: RecipeContext, evidence: Evidence, teacher: Generation, student: Generation) -> Verdict:
    """The verdict on `student`, said and kept with it."""
    verdict = make_verdict(evidence, _share(student), setup.settings.guard)
    if verdict.rejects:
        verdict = replace(verdict, kept=CONTROL if verdict.decision.reason == "worse_than_control" else teacher.name)
    student.guard = verdict
    log_event(f"{student.name} guard", verdict.sentence)
    return verdict


def level_of(setup: RecipeContext) -> float:
    """The level of the tests of one model: those of a whole run together have `guard.level` (Bonferroni)."""
    return setup.settings.guard.level / setup.settings.recipe.num_judged


def _score(generation: Generation | None) -> Score | None:
    return generation.validation.score if generation is not None and generation.validation is not None else None


def _choices(settings: RunSettings, number: int) -> tuple[object, ...]:
    """All that a generation may do differently from the one before with the same teacher."""
    return settings.recipe.selection(settings, number), settings.recipe.learner(settings, number)


def stop_without_labels(name: str, teacher: Generation, pseudo: Output) -> bool:
    """Whether generation `name` has no pseudo-label to learn from: the self-training ends, with or without validation images."""
    if pseudo.summary["selected"]:
        return False
    decision = judge_generation(Evidence(None, np.zeros(1, np.int64)))
    teacher.guard = Verdict(decision, obeyed=True, selected_share=0.0)
    log_event(f"{name} guard", teacher.guard.sentence)
    return True


def make_verdict(evidence: Evidence, selected_share: float | None, limits: GuardSettings) -> Verdict:
    """The verdict on a generation. It is obeyed when the rails are on and models were compared on validation images."""
    test = evidence.student_against_teacher
    return Verdict(
        judge_generation(evidence, limits),
        obeyed=limits.enabled and test is not None,
        selected_share=selected_share,
        churn=evidence.churn.rate if evidence.churn is not None and evidence.churn.both else None,
        difference=test.difference if test is not None else None,
    )


def evidence_of(
    pseudo: Iterable[pa.Table],
    pseudo_before: Iterable[pa.Table] | None,
    validation: tuple[pa.Table, pa.Table] | None,
    task: Task,
    level: float = 0.05,
) -> Evidence:
    """What two generations of one architecture show.

    `pseudo`, `pseudo_before`: what the student and its teacher learned from (shard, row, class, score), a table per range of shards, the same
    ranges. `validation`: what teacher and student predicted for the validation images (rows of the task's measure); None where there are none. They
    are compared on the images that both could read, at significance `level`.
    """
    compared = gap = None
    if validation is not None:
        compared = task.measure.paired(*validation, level)
        gap = task.measure.overconfidence(*validation, level)
    selected, before = (np.zeros(len(task.classes), np.int64) for _ in range(2))
    changes = Churn(0, 0, 0, 0)
    for new, old in zip_longest(pseudo, pseudo_before or ()):
        selected += _selected(new, len(selected))
        if old is not None:
            before += _selected(old, len(before))
            changes += churn(old, new)
    is_first = pseudo_before is None
    return Evidence(
        compared,
        selected,
        None if is_first else before,
        None if is_first else changes,
        gap,
        level,
        names=task.classes.names,
    )


def _evidence(setup: RecipeContext, teacher: Generation, student: Generation) -> Evidence:
    """Read back what the two generations left in the store."""
    pseudo, before = (_labels(setup, one) for one in (student, teacher))
    assert pseudo is not None, "a student has pseudo-labels"
    level = level_of(setup)
    evidence = evidence_of(pseudo, before, _validation_rows(setup, teacher, student), setup.task, level)
    if teacher.network.architecture == student.network.architecture:
        return evidence
    control = None
    if setup.control is not None and (rows := _validation_rows(setup, setup.control, student)) is not None:
        control = setup.task.measure.paired(*rows, level)
    return replace(evidence, same_network=False, gap_change=None, student_against_control=control)


def _validation_rows(setup: RecipeContext, first: Generation, second: Generation) -> tuple[pa.Table, pa.Table] | None:
    """What two models answered on the validation images; None where there are none."""
    outputs = [_output(setup, one.validation.step if one.validation else None) for one in (first, second)]
    if outputs[0] is None or outputs[1] is None:
        return None
    return rows_of(outputs[0], setup.run), rows_of(outputs[1], setup.run)


def _labels(setup: RecipeContext, generation: Generation) -> Iterable[pa.Table] | None:
    """PICKED of the selection that a model learned from, range by range; None for one that learned true labels alone."""
    pseudo = _output(setup, generation.pseudo.get("step"))
    if pseudo is None:
        return None
    return setup.arranged(f"{generation.name} gather", pseudo, generation.pseudo["on"]).tables(PICKED)


def _output(setup: RecipeContext, step: str | None) -> Output | None:
    return read_output(setup.run.store, step) if step else None


def _share(student: Generation) -> float | None:
    """Pseudo-labels over the images that the teacher labelled; None for a model that learned true labels alone."""
    if "kept" not in student.pseudo:
        return None
    labelled = next((step.summary["images"] for step in student.steps if step.step.startswith("predict-")), None)
    return student.pseudo["kept"] / labelled if labelled else None


def _selected(pseudo: pa.Table, num_classes: int) -> npt.NDArray[np.int64]:
    """Pseudo-labels per class (C,)."""
    return np.bincount(pseudo["class"].to_numpy(), minlength=num_classes).astype(np.int64)
