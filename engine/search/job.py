"""Settings of `jobs.search`: those of the main job, and what is searched."""

import math
from typing import Self

from pydantic import Field, model_validator

from engine.recipes.clean_labels import CleanLabels
from engine.recipes.registry import SelfTrainSettings
from engine.settings.names import check_file_name
from engine.settings.recipe import GenerationalSettings
from engine.settings.run import GENERATIONAL, is_generational, refuse_renamed
from engine.settings.search import SearchSettings

FIXED = ("trust", "run", "store", "task", "seed", "data", "guard", "cluster", "search", "schedule")
"""What must be alike in all trials: they would not compare, or not share."""


class SearchJobSettings(SelfTrainSettings):
    """`jobs.search`: a config of the main job and a search block."""

    search: SearchSettings = Field(description="what is searched, and how")

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        search = self.search
        check_file_name("trial", f"{self.run}.99999-99999")
        if self.data.validation is None:
            raise ValueError("a search compares models on validation images: set data.validation")
        if self.schedule is not None:
            raise ValueError("a search finds the schedule itself: leave out schedule")
        if search.mode != "runs" and not isinstance(self.recipe, GenerationalSettings):
            raise ValueError(
                f"mode {search.mode} goes over generations, and recipe {self.recipe.name} has none: set mode: runs"
            )
        if search.mode != "runs" and isinstance(self.recipe, CleanLabels) and self.data.pool is None:
            raise ValueError(
                f"mode {search.mode} goes over generations, and recipe clean_labels has them on a pool alone: set mode: runs, or data.pool"
            )
        if search.mode != "runs" and self.recipe.num_generations < 1:
            raise ValueError(f"mode {search.mode} goes over generations: set recipe.generations")
        for path in search.space:
            group = path.partition(".")[0]
            if group in FIXED:
                raise ValueError(f"search.space: {path} must be alike in all trials")
            refuse_renamed(path, "search.space")
            if search.mode != "runs" and not is_generational(path):
                raise ValueError(
                    f"search.space: {path} is one for all generations; mode {search.mode} changes {', '.join(GENERATIONAL)}: set mode: runs"
                )
        grids = math.prod(len(d.grid) for d in search.space.values() if d.grid is not None)
        if search.trials <= grids:
            raise ValueError(
                f"search.trials: the grids have {grids} combinations, and the first trial is the config as it stands:"
                f" set trials to at least {grids + 1}"
            )
        if search.sampler == "optuna" and grids > 1:
            raise ValueError(
                "sampler optuna chooses values itself: write choice instead of grid, or set sampler: random"
            )
        return self

    def base(self) -> SelfTrainSettings:
        """The main job as the config has it, without the search."""
        return SelfTrainSettings.model_validate(self.model_dump(mode="json", exclude={"search"}, exclude_unset=True))
