"""Billion-scale semi-supervised learning (Yalniz, Jégou, Chen, Paluri, Mahajan: Billion-scale semi-supervised learning for image
classification, 2019).

1  Learn a teacher on labelled images.
2  Let it label the pool; of every image only its P best classes count.
3  For each class take the K images that rank highest in it: pairs of image and class, the same number for every class.
4  Learn a student from scratch on the pairs alone.
5  Fine-tune it on the true labels alone.

P above 1 is for rare classes: they seldom win an image, yet an image's fifth class may be that class's best example.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.guard import next_teacher, stop_without_labels
from engine.recipes.recipe import GenerationalRecipe, first_teacher
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class Pairs(GenerationalRecipe):
    """Students that learn pairs of image and class, then true labels; once in the paper."""

    def needs_of_students(self, run: RunSettings) -> Iterator[Need]:
        yield from super().needs_of_students(run)
        yield (
            run.fits.student is not None and set(run.fits.student.batch) != {"pseudo"},
            "trains students on pseudo-labels alone: set fits.student.batch={pseudo: …}; true labels come in the finetune",
        )
        yield (
            run.fits.finetune is None or set(run.fits.finetune.batch) != {"labelled"},
            "ends with a fit on true labels alone: set fits.finetune with batch={labelled: …}",
        )
        yield (
            run.select.per_class is None,
            "takes the K best images of each class: set select.per_class, 16000 in the paper",
        )
        yield (
            run.select.targets != "hard",
            "learns (image, class) pairs: set select.targets=hard; its rank in another class is what makes a pair, not its probability",
        )

    def fits(self, run: RunSettings) -> list[FitSettings]:
        finetunes = [run.fits.finetune] if run.fits.finetune is not None else []
        return [*self.teacher_fits(run), *self.student_fits(run), *(self.generations * finetunes)]

    def final_fits(self, run: RunSettings) -> tuple[ModelSettings, list[FitSettings]]:
        model, fits = super().final_fits(run)
        return model, [*fits, *([run.fits.finetune] if run.fits.finetune is not None and self.generations else [])]

    def students(self, setup: RecipeContext, teacher: Generation) -> list[Generation]:
        """Steps 2 to 5, `generations` times."""
        settings = setup.settings
        finetune = settings.fits.finetune
        made: list[Generation] = []
        for number in range(1, self.generations + 1):
            assert finetune is not None, "refused by the settings"
            name = f"generation {number}"
            model, student_fit = settings.learner(number)
            predictions = setup.predict(f"{name} predict", teacher.model)
            pairs = setup.select(f"{name} select", predictions, self.selection(settings, number))
            if stop_without_labels(name, teacher, pairs):
                break
            stream = setup.gather(f"{name} gather", pairs)
            pretrained = setup.fit(f"{name} fit", model, student_fit, pseudo=stream)
            tuned = setup.fit(f"{name} finetune", model, finetune, pretrained, labelled=setup.labelled)
            validation = setup.evaluate(f"{name} validation", tuned, "validation")
            steps = [predictions, pairs, stream.output, pretrained, tuned]
            quality = setup.pseudo_quality(f"{name} gather", pairs)
            student = Generation(name, model, tuned, steps, validation, pseudo=quality)
            made.append(student)
            if (successor := next_teacher(setup, number, teacher, student)) is None:
                break
            teacher = successor
        return made


class BillionScale(Pairs):
    """Billion-scale semi-supervised learning."""

    name: Literal["billion_scale"] = Field("billion_scale", description="the recipe")

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The teacher and every student, oldest first."""
        teacher = first_teacher(setup)
        return [teacher, *self.students(setup, teacher)]
