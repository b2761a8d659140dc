"""What a recipe is: its options, what it cannot do without, and how it trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from engine.recipes.context import Generation, RecipeContext
from engine.settings.recipe import GenerationalSettings, Need, RecipeSettings
from engine.settings.run import RunSettings


class Recipe(RecipeSettings, ABC):
    """A page of plain Python that reads like its paper."""

    @abstractmethod
    def train(self, setup: RecipeContext) -> list[Generation]:
        """All models of the run, oldest first."""


class GenerationalRecipe(GenerationalSettings, Recipe):
    """A recipe whose students teach one another."""


def first_teacher(setup: RecipeContext, name: str = "teacher") -> Generation:
    """The model that learned the true labels alone."""
    settings = setup.settings
    network = settings.models.teacher
    model = setup.fit(f"{name} fit", network, settings.fits.teacher, labelled=setup.labelled)
    return Generation(name, network, model, [model], setup.evaluate(f"{name} validation", model, "validation"))


def needs_one_fit(run: RunSettings, objective: str) -> Iterator[Need]:
    """Of recipes that learn from labelled images and the pool in one fit."""
    yield run.data.pool is None, "learns from a pool: set data.pool"
    yield (
        run.fits.teacher.objective != objective,
        f"is one fit, `teacher`: set fits.teacher.objective={objective}",
    )
