"""Meta Pseudo Labels (Pham, Dai, Xie, Luong, Le: Meta pseudo labels, 2021).

1  At every step the teacher labels pool images, the student takes a step on these labels alone, and the teacher learns from how much the
   student's loss on labelled images fell by it, from the labelled images themselves, and from UDA.
2  In the end the student, which never saw a true label, is fine-tuned on the labelled images.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import judge_successor
from engine.recipes.recipe import Recipe, needs_one_fit
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class MetaPseudoLabels(Recipe):
    """Meta Pseudo Labels."""

    name: Literal["meta_pseudo_labels"] = Field("meta_pseudo_labels", description="the recipe")

    def needs(self, run: RunSettings) -> Iterator[Need]:
        yield from needs_one_fit(run, "meta_pseudo_labels")
        yield run.fits.finetune is None, "ends with the student fine-tuned on true labels: set fits.finetune"

    def fits(self, run: RunSettings) -> list[FitSettings]:
        assert run.fits.finetune is not None, "refused by the settings"
        return [run.fits.teacher, run.fits.finetune]

    def final_fits(self, run: RunSettings) -> tuple[ModelSettings, list[FitSettings]]:
        return run.models.teacher, self.fits(run)

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The student as it was trained, and fine-tuned."""
        model, fits = setup.settings.models.teacher, setup.settings.fits
        assert fits.finetune is not None, "refused by the settings"
        trained = setup.fit("together fit", model, fits.teacher, labelled=setup.labelled, pool=setup.pool)
        validation = setup.evaluate("student validation", trained, "validation")
        student = Generation("student", model, trained, [trained], validation)
        tuned = setup.fit("finetune fit", model, fits.finetune, trained, labelled=setup.labelled)
        validation = setup.evaluate("fine-tuned validation", tuned, "validation")
        fine_tuned = Generation("fine-tuned", model, tuned, [tuned], validation)
        judge_successor(setup, student, fine_tuned)
        return [student, fine_tuned]
