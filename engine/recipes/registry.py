"""All recipes, once: what settings may name, and how a run of any of them goes - train everything, then look at the test set once."""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from engine.fit.check import check_fit, check_students
from engine.recipes.billion_scale import BillionScale
from engine.recipes.clean_labels import CleanLabels
from engine.recipes.consistency import UDA, FixMatch
from engine.recipes.context import Generation, RecipeContext
from engine.recipes.control import RunResult, choose, measure_effect, train_control
from engine.recipes.hashtags import Hashtags, SemiWeaklySupervised
from engine.recipes.mapping import Mapping
from engine.recipes.meta_pseudo_labels import MetaPseudoLabels
from engine.recipes.noisy_student import NoisyStudent
from engine.recipes.pretext import Inpainting, Rotation, SelfSupervised
from engine.recipes.probe import Probe
from engine.recipes.recipe import Recipe
from engine.recipes.self_distillation import SelfDistillation
from engine.recipes.supervised import Supervised
from engine.recipes.threshold import Threshold
from engine.settings.block import blocks_of, tag_of
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
    | Mapping
    | Hashtags
    | SemiWeaklySupervised
    | Probe,
    Field(discriminator="name"),
]


STREAMS = {
    "teacher": {"labelled", "pool"},
    "student": {"labelled", "pseudo"},
    "pretext": {"labelled", "pool"},
    "finetune": {"labelled"},
    "tagging": {"tags"},
}
"""Streams that each fit of a run may draw from."""


class SelfTrainSettings(RunSettings):
    """`jobs.self_train`: the main job with any of the recipes."""

    recipe: AnyRecipe = Field(NoisyStudent(), description="recipe and its own options")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tree: Any) -> Any:
        """What a recipe does not read need not be given."""
        recipe = tree.get("recipe") if isinstance(tree, dict) else None
        name = recipe.get("name") if isinstance(recipe, dict) else recipe
        for kind in blocks_of(AnyRecipe):
            if issubclass(kind, Recipe) and tag_of(kind) == name and kind.implied:
                return {**kind.implied, **tree}
        return tree

    @model_validator(mode="after")
    def _every_fit_can_begin(self) -> Self:
        """What a later fit names is looked up now: a student's mistakes would cost its teacher's fit and the pool's predictions."""
        for name, fit in self.fits.named().items():
            check_fit(f"fits.{name}", self.models.teacher, fit, STREAMS[name])
        for number in range(1, self.recipe.num_generations + 1):
            model, fit = self.recipe.learner(self, number)
            check_fit(f"the student of generation {number}", model, fit, STREAMS["student"])
        check_students(self)
        return self


def train(setup: RecipeContext) -> list[Generation]:
    """All generations of the run's recipe."""
    recipe = setup.settings.recipe
    assert isinstance(recipe, Recipe), "the settings of a run name a recipe of this list"
    return recipe.train(setup)


def run_recipe(setup: RecipeContext) -> RunResult:
    """The run's recipe, its control before it; test metrics are filled in after the last model is trained and the one to use is chosen."""
    setup.control = train_control(setup)
    generations = train(setup)
    chosen = choose(setup, generations)
    everything = [*([setup.control] if setup.control is not None else []), *generations]
    for generation in everything:
        generation.test = setup.evaluate(f"{generation.name} test", generation.model, "test")
    return RunResult(everything, chosen.name, measure_effect(setup, generations))
