"""Settings of `jobs.search`: those of the main job, and what is searched."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import Block
from engine.settings.generation_schedule import GROUPS
from engine.settings.recipe import TEACHER_ALONE
from engine.settings.run import SelfTrainSettings


class Dimension(Block):
    """The values that one setting may take: exactly one of the five."""

    uniform: tuple[float, float] | None = Field(None, description="any number between two, e.g. [0.3, 0.99]")
    loguniform: tuple[float, float] | None = Field(
        None, description="any positive number, each factor alike, e.g. [1e-3, 1]"
    )
    integer: tuple[int, int] | None = Field(None, description="whole numbers from the first to the last, both included")
    choice: list[Any] | None = Field(None, description="one of a list")
    grid: list[Any] | None = Field(None, description="every one of a list, in all combinations with other grids")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a dimension is one of {', '.join(type(self).model_fields)}; found {given or 'none'}")
        for low, high in (span for span in (self.uniform, self.loguniform, self.integer) if span is not None):
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"a range goes from the lower to the higher end; found [{low}, {high}]")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError("loguniform has positive ends; take uniform for a range that holds 0")
        if self.values is not None and not self.values:
            raise ValueError("a list of values must not be empty")
        return self

    @property
    def values(self) -> list[Any] | None:
        """The values of a dimension that is a list; None for a range."""
        return self.choice if self.choice is not None else self.grid


class HalvingSettings(Block):
    """When a trial of mode `runs` is stopped: after a generation, unless it is among the best that got so far (ASHA)."""

    grace: int = Field(1, ge=1, description="generations that every trial may finish")
    keep: float = Field(0.5, gt=0, lt=1, description="share of the trials that goes on after a generation")


class PopulationSettings(Block):
    """How a population changes between two generations (population-based training)."""

    quantile: float = Field(
        0.25, gt=0, le=0.5, description="so many of the worst become copies of as many of the best, and explore"
    )
    step: float = Field(0.2, gt=0, lt=1, description="a copy's settings move by this share of their range")
    resample: float = Field(0.25, ge=0, le=1, description="probability that a copy's setting is drawn anew instead")


class SearchSettings(Block):
    """What is searched, and how."""

    mode: Literal["runs", "greedy", "population"] = Field(
        "greedy",
        description="runs: each trial is a whole run; greedy: the best student of a generation teaches the next;"
        " population: students of all members live on, the worst become copies of the best",
    )
    sampler: Literal["random", "optuna"] = Field(
        "random", description="how values are drawn; optuna learns from earlier trials (pip install '.[search]')"
    )
    trials: int = Field(
        8,
        ge=2,
        description="trials in mode runs, students a generation in the others; the first is the config as it stands, and grids come after it",
    )
    space: dict[str, Dimension] = Field(min_length=1, description="dotted settings and the values they may take")
    seed: int = 0
    concurrent: int | None = Field(
        None, ge=1, description="trials at once, at most; as many as the cluster feeds when not given"
    )
    halving: HalvingSettings | None = Field(HalvingSettings(), description="mode runs; null lets every trial finish")
    population: PopulationSettings = PopulationSettings()


FIXED = ("run", "store", "task", "data", "guard", "cluster", "search", "schedule", "selects")
"""What must be alike in all trials: they would not compare, or not share."""


GENERATIONAL = (*TEACHER_ALONE, "semi_weakly_supervised")
"""Recipes whose students teach one another: what modes greedy and population go over."""


class SearchJobSettings(SelfTrainSettings):
    """`jobs.search`: a config of the main job and a search block."""

    search: SearchSettings

    @model_validator(mode="after")
    def _can_be_searched(self) -> Self:
        search = self.search
        if self.data.validation is None:
            raise ValueError("a search compares models on validation images: set data.validation")
        if self.selects is not None or self.schedule is not None:
            raise ValueError("a search finds the schedule itself: leave out selects and schedule")
        if search.mode != "runs" and self.recipe not in GENERATIONAL:
            raise ValueError(
                f"mode {search.mode} goes over generations, and recipe {self.recipe} has none: set mode: runs"
            )
        if search.mode != "runs" and self.recipe == "clean_labels" and self.data.pool is None:
            raise ValueError(
                f"mode {search.mode} goes over generations, and recipe clean_labels has them on a pool alone: set mode: runs, or data.pool"
            )
        if search.mode != "runs" and self.generations < 1:
            raise ValueError(f"mode {search.mode} goes over generations: set generations")
        for path in search.space:
            group = path.partition(".")[0]
            if group in FIXED:
                raise ValueError(f"search.space: {path} must be alike in all trials")
            if search.mode != "runs" and group not in GROUPS:
                raise ValueError(
                    f"search.space: {path} is one for all generations; mode {search.mode} changes {', '.join(GROUPS)}: set mode: runs"
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
        return SelfTrainSettings.model_validate(self.model_dump(mode="json", exclude={"search"}))
