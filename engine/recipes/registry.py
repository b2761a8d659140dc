"""All recipes, once: what settings may name, and how a run of any of them goes - train everything, then look at the test set once."""

from typing import Annotated

from pydantic import Field

from engine.recipes.billion_scale import BillionScale
from engine.recipes.clean_labels import CleanLabels
from engine.recipes.consistency import UDA, FixMatch
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.hashtags import Hashtags, SemiWeaklySupervised
from engine.recipes.meta_pseudo_labels import MetaPseudoLabels
from engine.recipes.noisy_student import NoisyStudent
from engine.recipes.pretext import Inpainting, Rotation, SelfSupervised
from engine.recipes.recipe import Recipe
from engine.recipes.self_distillation import SelfDistillation
from engine.recipes.supervised import Supervised
from engine.recipes.threshold import Threshold
from engine.settings.run import RunSettings

AnyRecipe = Annotated[
    NoisyStudent
    | Threshold
    | Supervised
    | BillionScale
    | SelfDistillation
    | CleanLabels
    | Rotation
    | Inpainting
    | SelfSupervised
    | FixMatch
    | UDA
    | MetaPseudoLabels
    | Hashtags
    | SemiWeaklySupervised,
    Field(discriminator="name"),
]


class SelfTrainSettings(RunSettings):
    """`jobs.self_train`: the main job with any of the recipes."""

    recipe: AnyRecipe = Field(NoisyStudent(), description="recipe and its own options")


def train(setup: RecipeContext) -> list[Generation]:
    """All generations of the run's recipe."""
    recipe = setup.settings.recipe
    assert isinstance(recipe, Recipe), "the settings of a run name a recipe of this list"
    return recipe.train(setup)


def run_recipe(setup: RecipeContext) -> list[Generation]:
    """All generations of the run's recipe; their test metrics are filled in after the last one is trained."""
    generations = train(setup)
    for generation in generations:
        generation.test = setup.evaluate(f"{generation.name} test", generation.model, "test")
    return generations
