"""Confidence-threshold pseudo-labelling (Lee: Pseudo-Label, 2013; the fastai tradition; scikit-learn's SelfTrainingClassifier).

Label the pool, keep what the teacher is sure of, learn from true and pseudo-labels together, repeat.

Two policies: *everything* (each round labels the whole pool anew) and *sticky* (scikit-learn: a label once accepted never changes, rounds only
add to it).
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.fit.source import GatheredSource
from engine.ground.steps import Output
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import next_teacher, stop_without_labels
from engine.recipes.recipe import GenerationalRecipe, first_teacher
from engine.settings.recipe import Need
from engine.settings.run import RunSettings
from engine.settings.select import SelectSettings

CUT = (
    "keeps what its teacher is sure of: set select.threshold, e.g. 0.95 (0.75 is scikit-learn's default), or select.cut,"
    " or select.per_class for the most confident of each class"
)


def cuts(run: RunSettings) -> Iterator[Need]:
    """That every generation leaves out what its teacher is not sure of."""
    for number in run.scheduled:
        yield not is_cut(run.selection(number)), CUT


def is_cut(select: SelectSettings) -> bool:
    """Whether a selection leaves anything out for want of confidence."""
    return bool(select.threshold or select.thresholds or select.per_class) or select.cut != "fixed"


class Rounds(GenerationalRecipe):
    """Options of rounds over the pool."""

    warm_start: bool = Field(False, description="students start from their teacher's weights instead of from scratch")
    relabel: Literal["everything", "sticky"] = Field(
        "everything",
        description="labels that a round gives; sticky: one once accepted never changes (scikit-learn's mode)",
    )

    def needs_of_students(self, run: RunSettings) -> Iterator[Need]:
        yield from super().needs_of_students(run)
        yield from cuts(run)

    def selection(self, run: RunSettings, number: int) -> SelectSettings:
        """Pseudo-labels are hard where `select.targets` is not set, as in Lee 2013 and in fastai's notebooks."""
        given = run.selection(number)
        return given if "targets" in given.model_fields_set else given.model_copy(update={"targets": "hard"})

    def rounds(self, setup: RecipeContext, teacher: Generation, labelled: GatheredSource) -> list[Generation]:
        """The students of `teacher` and of one another on true labels `labelled` and what each teacher is sure of."""
        settings = setup.settings
        generations: list[Generation] = []
        accepted: Output | None = None
        for number in range(1, self.generations + 1):
            name = f"round {number}"
            student_model, student_fit = settings.learner(number)
            predictions = setup.predict(f"{name} predict", teacher.model)
            keep = accepted if self.relabel == "sticky" else None
            pseudo = setup.select(f"{name} select", predictions, self.selection(settings, number), keep)
            if stop_without_labels(name, teacher, pseudo):
                break
            stream = setup.gather(f"{name} gather", pseudo)
            start = teacher.model if self.warm_start else None
            model = setup.fit(f"{name} fit", student_model, student_fit, start, labelled=labelled, pseudo=stream)
            validation = setup.evaluate(f"{name} validation", model, "validation")
            steps = [predictions, pseudo, stream.output, model]
            quality = setup.pseudo_quality(f"{name} gather", pseudo)
            student = Generation(name, student_model, model, steps, validation, pseudo=quality)
            generations.append(student)
            if (successor := next_teacher(setup, number, teacher, student)) is None:
                break
            accepted = pseudo if successor is student else accepted
            teacher = successor
        return generations


class Threshold(Rounds):
    """Confidence-threshold pseudo-labelling."""

    name: Literal["threshold"] = Field("threshold", description="the recipe")

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The teacher and every student, oldest first."""
        teacher = first_teacher(setup)
        return [teacher, *self.rounds(setup, teacher, setup.labelled)]
