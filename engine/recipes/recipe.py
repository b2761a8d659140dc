"""What a recipe is: its options, what it cannot do without, and how it trains."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from engine.models.checkpoint import read_config
from engine.models.fetch import fetch_model
from engine.models.imported import find_model
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
    """The model that learned the true labels alone, or the one that `recipe.teacher` names."""
    settings = setup.settings
    given = settings.recipe.teacher if isinstance(settings.recipe, GenerationalSettings) else None
    if given is not None:
        return existing_teacher(setup, name, given)
    network = settings.models.teacher
    model = setup.fit(f"{name} fit", network, settings.fits.teacher, labelled=setup.labelled)
    return Generation(name, network, model, [model], setup.evaluate(f"{name} validation", model, "validation"))


def existing_teacher(setup: RecipeContext, name: str, reference: str) -> Generation:
    """The model folder or fit step `reference` as a generation. Raises ValueError when it answers other classes than the run's."""
    model = find_model(setup.run, reference)
    described = read_config(fetch_model(model, setup.run.store.fs))
    if tuple(described.class_names) != setup.classes.names:
        ours, theirs = (set(names) for names in (setup.classes.names, described.class_names))
        lacking, foreign = sorted(ours - theirs), sorted(theirs - ours)
        problem = (
            f"it lacks {lacking[:5]}, and has {foreign[:5]}"
            if lacking or foreign
            else "the same names in another order"
        )
        raise ValueError(
            f"recipe.teacher={reference}: its {len(described.class_names)} classes are not the {len(setup.classes)} of this run: {problem}."
            " Set data.classes to the model's list, or leave recipe.teacher out and train one"
        )
    return Generation(
        name, described.settings, model, [model], setup.evaluate(f"{name} validation", model, "validation")
    )


def needs_one_fit(run: RunSettings, objective: str) -> Iterator[Need]:
    """Of recipes that learn from labelled images and the pool in one fit."""
    yield run.data.pool is None, "learns from a pool: set data.pool"
    yield (
        run.fits.teacher.objective != objective,
        f"is one fit, `teacher`: set fits.teacher.objective={objective}",
    )
