"""Recipes by name, and the one way in which they are run: train everything, then look at the test set once."""

from collections.abc import Callable

from engine.recipes.billion_scale import billion_scale
from engine.recipes.clean_labels import clean_labels
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.fixmatch import fixmatch
from engine.recipes.hashtags import hashtags, semi_weakly_supervised
from engine.recipes.inpainting import inpainting
from engine.recipes.meta_pseudo_labels import meta_pseudo_labels
from engine.recipes.noisy_student import noisy_student
from engine.recipes.rotation import rotation
from engine.recipes.self_distillation import self_distillation
from engine.recipes.self_supervised import self_supervised
from engine.recipes.supervised import supervised
from engine.recipes.threshold import threshold
from engine.recipes.uda import uda

Recipe = Callable[[RecipeContext], list[Generation]]

RECIPES: dict[str, Recipe] = {
    "noisy_student": noisy_student,
    "supervised": supervised,
    "threshold": threshold,
    "billion_scale": billion_scale,
    "self_distillation": self_distillation,
    "clean_labels": clean_labels,
    "rotation": rotation,
    "inpainting": inpainting,
    "self_supervised": self_supervised,
    "fixmatch": fixmatch,
    "uda": uda,
    "meta_pseudo_labels": meta_pseudo_labels,
    "hashtags": hashtags,
    "semi_weakly_supervised": semi_weakly_supervised,
}


def run_recipe(setup: RecipeContext) -> list[Generation]:
    """All generations of the run's recipe; their test metrics are filled in after the last one is trained."""
    generations = RECIPES[setup.settings.recipe](setup)
    for generation in generations:
        generation.test = setup.evaluate(f"{generation.name} test", generation.model, "test")
    return generations
