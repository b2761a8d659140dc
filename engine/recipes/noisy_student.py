"""Noisy Student (Xie, Luong, Hovy, Le: Self-training with Noisy Student improves ImageNet classification, 2020; Algorithm 1).

1  Learn a teacher on labelled images, noised.
2  Let the un-noised teacher label the unlabelled images, softly or hardly.
3  Learn an equal-or-larger student on labelled and pseudo-labelled images together, noised: augmentation, dropout, stochastic depth.
4  Fix the resolution: a last short fit on labelled images, larger and without augmentation, shallow layers frozen (`fits.finetune`).
5  Make the student the teacher and go back to 2; later teachers may label only what the first one chose (`relabel: filtered`).

The loss is one mean over the concatenated batch, as the paper says. Its program adds r times the pseudo-labelled mean to the labelled one, (1 + r)
times as much: `stream_weight: {labelled: 1, pseudo: r}`. Under SGD that is a learning rate (1 + r) times as large.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from engine.ground.steps import Output
from engine.models.build import warn_if_smaller
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.efficientnet import centre_share, published
from engine.recipes.guard import next_teacher, stop_without_labels
from engine.recipes.recipe import GenerationalRecipe, first_teacher
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings, ModelsSettings
from engine.settings.recipe import Need
from engine.settings.run import RunSettings

OF_TARGETS = ("targets", "temperature")
"""What a generation that relabels may choose: how its labels are written, not which images have one."""


class NoisyStudent(GenerationalRecipe):
    """Noisy Student."""

    name: Literal["noisy_student"] = Field("noisy_student", description="the recipe")
    warm_start: bool = Field(False, description="students start from their teacher's weights instead of from scratch")
    relabel: Literal["everything", "filtered"] = Field(
        "everything", description="images that later teachers label; filtered: only those of the first selection"
    )
    published_noise: bool = Field(
        False,
        description="noise, dropout, image size and batch ratio that are not set are those of the paper's program for the student's EfficientNet",
    )
    finetune_img_size: int | None = Field(
        None,
        ge=1,
        le=16_384,
        description="side of the images of the finetune in pixels, the fix of train and test resolution (default: the fit's)",
    )

    def needs_of_students(self, run: RunSettings) -> Iterator[Need]:
        yield from super().needs_of_students(run)
        yield (
            self.relabel == "filtered" and run.select.classes_per_image > 1,
            "gives an image one label when relabel=filtered: set select.classes_per_image=1",
        )
        for number in run.scheduled[1:]:
            now, first = (run.selection(one).model_dump(exclude=set(OF_TARGETS)) for one in (number, 1))
            changed = ", ".join(f"select.{name}" for name in now if now[name] != first[name])
            yield (
                self.relabel == "filtered" and bool(changed),
                f"lets generation {number} relabel what the first one chose, at any score: take {changed} out of its schedule",
            )
        yield (
            self.finetune_img_size is not None and run.fits.finetune is None,
            "changes the image size in its finetune: set fits.finetune, e.g. a hundredth of the student's steps with noise: {labelled: {hflip: 0}}",
        )

    def learner(self, run: RunSettings, number: int) -> tuple[ModelSettings, FitSettings]:
        """The student of a generation and its fit, with the published noise where that is asked for."""
        learner = run.learner(number)
        return published(*learner) if self.published_noise else learner

    def final_network(self, student: ModelSettings, given: ModelsSettings) -> ModelSettings:
        """The student at the size of its finetune; the published centre crop, where none is set, is that of the new size."""
        size = self.finetune_img_size or student.img_size
        changes: dict[str, Any] = {"img_size": size}
        if self.published_noise and (given.student or given.teacher).crop_pct is None:
            changes["crop_pct"] = centre_share(size)
        return student.model_copy(update=changes)

    def fits(self, run: RunSettings) -> list[FitSettings]:
        made = self.teacher_fits(run)
        for number in range(1, self.generations + 1):
            made.append(self.learner(run, number)[1])
            made += [run.fits.finetune] if run.fits.finetune is not None else []
        return made

    def final_fits(self, run: RunSettings) -> tuple[ModelSettings, list[FitSettings]]:
        model, fits = super().final_fits(run)
        return model, [*fits, *([run.fits.finetune] if run.fits.finetune is not None and self.generations else [])]

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The teacher and every student, oldest first."""
        settings, finetune = setup.settings, setup.settings.fits.finetune
        generations = [teacher := first_teacher(setup)]

        filtered: Output | None = None
        for number in range(1, self.generations + 1):
            name = f"generation {number}"
            student_model, student_fit = self.learner(settings, number)
            warn_if_smaller(settings.models.teacher, student_model, len(setup.classes))
            if self.relabel == "filtered" and filtered is not None:
                predictions = setup.predict(f"{name} predict", teacher.model, only=setup.selected_images(filtered))
                pseudo = setup.reassign(f"{name} reassign", predictions, filtered, self.selection(settings, number))
            else:
                predictions = setup.predict(f"{name} predict", teacher.model)
                pseudo = filtered = setup.select(f"{name} select", predictions, self.selection(settings, number))
            if stop_without_labels(name, teacher, pseudo):
                break
            stream = setup.gather(f"{name} gather", pseudo)
            start = teacher.model if self.warm_start else None
            model = setup.fit(f"{name} fit", student_model, student_fit, start, labelled=setup.labelled, pseudo=stream)
            steps = [predictions, pseudo, stream.output, model]
            if finetune is not None:
                final_model = self.final_network(student_model, settings.at(number).models)
                model = setup.fit(f"{name} finetune", final_model, finetune, model, labelled=setup.labelled)
                steps.append(model)
            validation = setup.evaluate(f"{name} validation", model, "validation")
            quality = setup.pseudo_quality(f"{name} gather", pseudo)
            student = Generation(name, student_model, model, steps, validation, pseudo=quality)
            generations.append(student)
            if (successor := next_teacher(setup, number, teacher, student)) is None:
                break
            teacher = successor
        return generations
