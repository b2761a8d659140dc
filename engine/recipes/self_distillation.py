"""Self-distillation (Mobahi, Farajtabar, Bartlett: Self-distillation amplifies regularization in Hilbert space, 2020; Borup, Andersen: Even your
teacher needs guidance, 2021).

0  Learn a model on the labelled images.
t  Learn the same architecture anew, on the same images, towards the answers of round t - 1; in the second paper towards a mixture of those
   answers and the true labels.

Each round regularises a little more: first less over-fit, then under-fit, and without true labels in the end nothing is left. So every round is
watched on true labels that none of them learned from, and the rounds end with the first that is significantly worse.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import next_teacher, stop_without_labels
from engine.recipes.recipe import GenerationalRecipe, first_teacher
from engine.settings.recipe import Need
from engine.settings.run import RunSettings

REGRESSION = "mse_outputs"
"""The loss of the papers: squared, on outputs, which are stored as they are."""


class SelfDistillation(GenerationalRecipe):
    """Self-distillation on the labelled images."""

    name: Literal["self_distillation"] = Field("self_distillation", description="the recipe")
    truth_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share a of the true label in a target, the last round's prediction has 1 - a; 0 is the paper, 0.35 a start for its sequel",
    )

    def needs_of_students(self, run: RunSettings) -> Iterator[Need]:
        yield (
            run.models.student is not None,
            "trains one architecture again and again: leave out models.student",
        )
        yield (
            set((run.fits.student or run.fits.teacher).batch) != {"labelled"},
            "learns from the labelled images alone: set fits.student.batch={labelled: …}, or leave out fits.student",
        )
        losses = {(run.fits.student or run.fits.teacher).loss, run.fits.teacher.loss}
        yield (
            REGRESSION in losses and len(losses) > 1,
            f"regresses outputs in every round or in none: set fits.teacher.loss={REGRESSION}, too",
        )
        yield (
            REGRESSION in losses and ("energy" not in run.predict.extra_scores or run.predict.views != "one"),
            f"stores outputs for {REGRESSION}: set predict.extra_scores=[energy], predict.top_p to the number of classes, predict.views=one",
        )

    def train(self, setup: RecipeContext) -> list[Generation]:
        """Every round's model, oldest first."""
        settings = setup.settings
        rounds = [teacher := first_teacher(setup, "round 0")]

        for number in range(1, self.generations + 1):
            name = f"round {number}"
            _, learner = settings.learner(number)
            predictions = setup.predict(f"{name} predict", teacher.model, on="labelled")
            answers = setup.select(f"{name} select", predictions, self.selection(settings, number), on="labelled")
            if stop_without_labels(name, teacher, answers):
                break
            if learner.loss == REGRESSION:
                targets = setup.outputs(f"{name} outputs", predictions, self.truth_share)
            else:
                targets = setup.mix(f"{name} mix", answers, self.truth_share)
            stream = setup.gather(f"{name} gather", targets, on="labelled")
            # another seed: from the same start the round would only retrace the one before
            again = learner.model_copy(update={"seed": learner.seed + number})
            model = setup.fit(f"{name} fit", settings.models.teacher, again, labelled=stream)
            validation = setup.evaluate(f"{name} validation", model, "validation")
            steps = [predictions, targets, stream.output, model]
            quality = setup.pseudo_quality(f"{name} gather", answers, on="labelled")
            student = Generation(name, settings.models.teacher, model, steps, validation, pseudo=quality)
            rounds.append(student)
            if (successor := next_teacher(setup, number, teacher, student, settles=False)) is None:
                break
            teacher = successor
        return rounds
