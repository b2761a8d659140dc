"""What the settings of every recipe have in common. Each recipe's own options stand beside it, in `engine/recipes/`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from engine.settings.block import Block
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.select import SelectSettings

if TYPE_CHECKING:
    from engine.settings.run import RunSettings

Need = tuple[bool, str]
"""(whether the settings of a run lack it, the remedy)."""


class RecipeSettings(Block):
    """Options of a recipe, what it cannot do without, and which fits it makes."""

    implied: ClassVar[dict[str, Any]] = {}
    """Groups of a run's settings that have to be there and that the recipe does not read: they need not be given."""

    name: str
    control: Literal["none", "labels_only"] = Field(
        "none",
        description="labels_only: the final network also learns the labels alone, with as many images and steps; says whether the pool helped",
    )

    @property
    def num_generations(self) -> int:
        """How many generations of students there are at most."""
        return 0

    @property
    def num_judged(self) -> int:
        """How many models are compared with the one before them at most: the tests of a run share one significance level."""
        return max(1, self.num_generations)

    def needs(self, run: RunSettings) -> Iterator[Need]:  # noqa: ARG002
        """What the recipe cannot work without, each asked only after those before it are met."""
        yield from ()

    def check(self, run: RunSettings) -> None:
        """Raise ValueError with the remedy when the settings of a run cannot be those of this recipe."""
        for lacking, remedy in self.needs(run):
            if lacking:
                raise ValueError(f"recipe {self.name} {remedy}")

    def fits(self, run: RunSettings) -> list[FitSettings]:
        """Every fit of a run if no generation is cut short, but for its pretext."""
        return [run.fits.teacher]

    def learner(self, run: RunSettings, number: int) -> tuple[ModelSettings, FitSettings]:
        """The student of a generation, counted from 1, and its fit."""
        return run.learner(number)

    def selection(self, run: RunSettings, number: int) -> SelectSettings:
        """The selection of a generation, counted from 1, with what the recipe has other defaults for."""
        return run.selection(number)

    def final_fits(self, run: RunSettings) -> tuple[ModelSettings, list[FitSettings]]:
        """The network of the final model, and the fits that it goes through after a pretext: what the control has to match."""
        return run.models.teacher, [run.fits.teacher]

    def is_selecting(self, run: RunSettings) -> bool:  # noqa: ARG002
        """Whether predictions are selected from, so that the two have to go together."""
        return self.num_generations > 0


class GenerationalSettings(RecipeSettings):
    """A recipe whose students teach one another. Without generations what is left of it is its teacher."""

    teacher: str | None = Field(
        None,
        description="first teacher, for which nothing is trained: a model folder, or a fit step of the store (default: one is trained)",
    )
    generations: int = Field(2, ge=0, le=1000, description="number of generations of students; 0 is the teacher alone")

    @property
    def num_generations(self) -> int:
        return self.generations

    def needs(self, run: RunSettings) -> Iterator[Need]:
        if self.generations > 0:
            yield from self.needs_of_students(run)

    def needs_of_students(self, run: RunSettings) -> Iterator[Need]:
        """What a generation cannot work without."""
        yield run.data.pool is None, "labels a pool: set data.pool"
        yield run.fits.student is None, "trains students: set fits.student"

    def student_fits(self, run: RunSettings) -> list[FitSettings]:
        """The fit of each generation's student."""
        return [run.learner(number)[1] for number in range(1, self.generations + 1)]

    def teacher_fits(self, run: RunSettings) -> list[FitSettings]:
        """The fit of the first teacher; none for one that exists."""
        return [run.fits.teacher] if self.teacher is None else []

    def fits(self, run: RunSettings) -> list[FitSettings]:
        return [*self.teacher_fits(run), *self.student_fits(run)]

    def final_fits(self, run: RunSettings) -> tuple[ModelSettings, list[FitSettings]]:
        if self.generations == 0:
            return super().final_fits(run)
        model, fit = self.learner(run, self.generations)
        return model, [fit]
