"""Settings of what is searched, and how."""

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import Block
from engine.settings.fit import LARGEST_SEED


class Dimension(Block):
    """The values that one setting may take: exactly one of the five."""

    uniform: tuple[float, float] | None = Field(
        None, description="lowest and highest number, e.g. [0.3, 0.99] (default: none)"
    )
    loguniform: tuple[float, float] | None = Field(
        None, description="lowest and highest positive number, each factor alike, e.g. [1e-3, 1] (default: none)"
    )
    integer: tuple[int, int] | None = Field(
        None, description="first and last whole number, both included (default: none)"
    )
    choice: list[Any] | None = Field(None, description="values of which one is drawn (default: none)")
    grid: list[Any] | None = Field(
        None, description="values that are all tried, in all combinations with other grids (default: none)"
    )

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

    grace: int = Field(1, ge=1, le=1000, description="number of generations that every trial may finish")
    keep: float = Field(0.5, gt=0, lt=1, description="share of the trials that goes on after a generation")


class PopulationSettings(Block):
    """How a population changes between two generations (population-based training)."""

    quantile: float = Field(
        0.25,
        gt=0,
        le=0.5,
        description="share of the members, the worst, that become copies of as many of the best, and explore",
    )
    step: float = Field(0.2, gt=0, lt=1, description="share of their range by which a copy's settings move")
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
        le=10**6,
        description="number of trials in mode runs, else of students per generation; the first is the config as it stands, grids follow",
    )
    space: dict[str, Dimension] = Field(min_length=1, description="dotted settings and the values they may take")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="random state of the search")
    concurrent: int | None = Field(
        None, ge=1, le=10**6, description="most trials at once (default: as many as the cluster feeds)"
    )
    halving: HalvingSettings | None = Field(
        HalvingSettings(), description="early stopping in mode runs; null lets every trial finish"
    )
    population: PopulationSettings = Field(
        PopulationSettings(), description="changes of a population in mode population"
    )
