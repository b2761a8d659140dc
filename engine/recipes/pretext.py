"""Recipes that begin with a pretext on raw images and learn the labels from its weights, with a new head; they differ in the pretext alone.

rotation         RotNet (Gidaris, Singh, Komodakis: Unsupervised representation learning by predicting image rotations, 2018): turn every image by
                 0, 90, 180 and 270 degrees and predict by how much, all four in one batch
inpainting       (Varty: Self-supervised learning on Image网, 2020): cut rectangles out of every image and restore it with a U-Net
self_supervised  (Howard: Self-supervised learning and computer vision, fast.ai, 2020): any pretext, briefly; then the new head alone, the body
                 frozen (`fits.teacher.freeze_steps`); then all of it, early layers at lower rates (`fits.teacher.layer_decay`)

The control, the same fit from random weights, is recipe `supervised` with `fits.pretext=null`.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.recipe import Recipe
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class Pretext(Recipe):
    """A pretext with one of `objectives`, then the labels."""

    objectives: ClassVar[tuple[str, ...]] = ()

    def needs(self, run: RunSettings) -> Iterator[Need]:
        pretext = run.fits.pretext
        yield (
            pretext is None or pretext.objective not in self.objectives,
            f"learns from raw images first: set fits.pretext, with fits.pretext.objective={' or '.join(self.objectives)}",
        )
        yield (
            pretext is not None and "pool" in pretext.batch and run.data.pool is None,
            "has the pool in fits.pretext.batch: set data.pool",
        )

    def train(self, setup: RecipeContext) -> list[Generation]:
        """The model that learned the labels starting from the pretext's weights."""
        pretext, settings = setup.pretext, setup.settings
        assert pretext is not None, "refused by the settings"
        fit = settings.fits.teacher
        network = settings.models.teacher
        model = setup.fit("fine-tune fit", network, fit, pretext, labelled=setup.labelled)
        validation = setup.evaluate("fine-tune validation", model, "validation")
        return [Generation("fine-tuned", network, model, [pretext, model], validation)]


class Rotation(Pretext):
    """Rotations."""

    name: Literal["rotation"] = Field("rotation", description="the recipe")
    objectives: ClassVar[tuple[str, ...]] = ("rotation",)


class Inpainting(Pretext):
    """In-painting."""

    name: Literal["inpainting"] = Field("inpainting", description="the recipe")
    objectives: ClassVar[tuple[str, ...]] = ("inpainting",)


class SelfSupervised(Pretext):
    """Any pretext."""

    name: Literal["self_supervised"] = Field("self_supervised", description="the recipe")
    objectives: ClassVar[tuple[str, ...]] = ("rotation", "patches", "inpainting", "colourisation", "two_views")
