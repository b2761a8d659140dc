"""The baseline that every other recipe has to beat: labels alone."""

from typing import Literal

from pydantic import Field

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.recipe import Recipe


class Supervised(Recipe):
    """Labels alone."""

    name: Literal["supervised"] = Field("supervised", description="the recipe")

    def train(self, setup: RecipeContext) -> list[Generation]:
        """One model, trained on the true labels."""
        settings = setup.settings
        network = settings.models.teacher
        model = setup.fit("teacher fit", network, settings.fits.teacher, labelled=setup.labelled)
        validation = setup.evaluate("teacher validation", model, "validation")
        return [Generation("supervised", network, model, [model], validation)]
