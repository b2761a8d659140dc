"""Recipes that are one fit on labelled images and the pool together. At every step, next to a batch of labelled images:

1  Predict a weak view of each pool image.
2  Learn that prediction on a strong view of the same image, where it is confident.

FixMatch (Sohn et al.: FixMatch: simplifying semi-supervised learning with consistency and confidence, 2020) learns the class above a threshold.
UDA (Xie, Dai, Hovy, Luong, Le: Unsupervised data augmentation for consistency training, 2019) learns the sharpened distribution; it carries most of
what Meta Pseudo Labels gains. The average of the weights is what is tested. Nothing is stored: targets live for one step.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from engine.recipes.context import Generation, RecipeContext
from engine.recipes.recipe import Recipe, needs_one_fit
from engine.settings.recipe import Need
from engine.settings.run import RunSettings


class Consistency(Recipe):
    """One fit whose objective has the name of the recipe."""

    def needs(self, run: RunSettings) -> Iterator[Need]:
        yield from needs_one_fit(run, self.name)

    def train(self, setup: RecipeContext) -> list[Generation]:
        """One model."""
        name, settings = self.name, setup.settings
        network, fit = settings.models.teacher, settings.fits.teacher
        model = setup.fit(f"{name} fit", network, fit, labelled=setup.labelled, pool=setup.pool)
        return [Generation(name, network, model, [model], setup.evaluate(f"{name} validation", model, "validation"))]


class FixMatch(Consistency):
    """FixMatch."""

    name: Literal["fixmatch"] = Field("fixmatch", description="the recipe")


class UDA(Consistency):
    """UDA."""

    name: Literal["uda"] = Field("uda", description="the recipe")
