"""The guard rails at work: evidence from what the store holds of two generations, and the one place that acts on the decision."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from engine.evaluate.evaluate import ANSWERS, shared_images
from engine.ground.progress import log_event
from engine.ground.steps import Output, read_output, read_tables
from engine.metrics.accuracy import mcnemar
from engine.metrics.calibration import gap_change
from engine.metrics.churn import churn
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.policy import Evidence, Verdict, judge_generation
from engine.settings.run import GuardSettings, RunSettings


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
    verdict = student.guard = make_verdict(evidence, _share(student), setup.settings.guard)
    log_event(f"{student.name} guard", verdict.sentence)
    if setup.run.on_generation is not None:
        setup.run.on_generation(number, (teacher if verdict.rejects else student).validation)
    if not verdict.obeyed or verdict.decision.action == "go on":
        return student
    if verdict.decision.action == "stop":
        return None
    settings = setup.settings
    same = number < settings.recipe.num_generations and _choices(settings, number + 1) == _choices(settings, number)
    return None if same else teacher


def _choices(settings: RunSettings, number: int) -> tuple[object, ...]:
    """All that a generation may do differently from the one before with the same teacher."""
    return settings.selection(number), settings.learner(number)


def stop_without_labels(name: str, teacher: Generation, pseudo: Output) -> bool:
    """Whether generation `name` has no pseudo-label to learn from: the self-training ends, with or without validation images."""
    if pseudo.summary["selected"]:
        return False
    decision = judge_generation(Evidence(None, np.zeros(1, np.int64)))
    teacher.guard = Verdict(decision, obeyed=True, selected_share=0.0)
    log_event(f"{name} guard", teacher.guard.sentence)
    return True


def make_verdict(evidence: Evidence, selected_share: float | None, limits: GuardSettings) -> Verdict:
    """The verdict on a generation. It is obeyed when the rails are on and the two models were compared on validation images."""
    test = evidence.student_against_teacher
    return Verdict(
        judge_generation(evidence, limits),
        obeyed=limits.enabled and test is not None,
        selected_share=selected_share,
        churn=evidence.churn.rate if evidence.churn is not None and evidence.churn.both else None,
        difference=test.difference if test is not None else None,
    )


def evidence_of(
    pseudo: pa.Table,
    pseudo_before: pa.Table | None,
    teacher: pa.Table | None,
    student: pa.Table | None,
    num_classes: int,
) -> Evidence:
    """What two generations show.

    `pseudo`, `pseudo_before`: what the student and its teacher learned from (shard, row, class, score). `teacher`, `student`: what they
    predicted for the validation images (evaluate's ANSWERS); None where there are none. They are compared on the images that both could read.
    """
    compared = gap = None
    if teacher is not None and student is not None:
        teacher, student = shared_images(teacher, student)
        right = [_column(table, "truth") == _column(table, "predicted") for table in (teacher, student)]
        compared = mcnemar(*right)
        gap = gap_change(_column(teacher, "confidence"), right[0], _column(student, "confidence"), right[1])
    return Evidence(
        compared,
        _selected(pseudo, num_classes),
        None if pseudo_before is None else _selected(pseudo_before, num_classes),
        None if pseudo_before is None else churn(pseudo_before, pseudo),
        gap,
    )


def _evidence(setup: RecipeContext, teacher: Generation, student: Generation) -> Evidence:
    """Read back what the two generations left in the store."""
    pseudo = _table(setup, student.pseudo, ["shard", "row", "class", "score"])
    assert pseudo is not None, "a student has pseudo-labels"
    before = _table(setup, teacher.pseudo, ["shard", "row", "class", "score"])
    answers = [_table(setup, generation.validation, ANSWERS.names) for generation in (teacher, student)]
    return evidence_of(pseudo, before, answers[0], answers[1], len(setup.classes))


def _table(setup: RecipeContext, summary: dict[str, object] | None, columns: list[str]) -> pa.Table | None:
    """All parts of the step that a summary names; None without one."""
    output = read_output(setup.run.store, str(summary["step"])) if summary else None
    if output is None:
        return None
    return pa.concat_tables(table for _, table in read_tables(output, setup.run.store.fs, columns))


def _share(student: Generation) -> float | None:
    """Pseudo-labels over the images that the teacher labelled."""
    labelled = next((step.summary["images"] for step in student.steps if step.step.startswith("predict-")), None)
    return student.pseudo["kept"] / labelled if labelled else None


def _selected(pseudo: pa.Table, num_classes: int) -> np.ndarray:
    return np.bincount(_column(pseudo, "class"), minlength=num_classes).astype(np.int64)


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()
