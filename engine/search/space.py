"""The search space: drawing, perturbing and checking settings. Pure functions of a seed; no cluster.

Drawn numbers have four significant digits: a schedule is to be read by a person, and nothing depends on the fifth.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import SettingsError, parse, set_value
from engine.settings.search import Dimension

Values = dict[str, Any]
Space = Mapping[str, Dimension]

CHECKED = 2000
"""Combinations that are tried on the settings before the cluster is used, at most."""


def draw(space: Space, seed: list[int], number: int = 0) -> Values:
    """Values of all dimensions: those of the `number`-th point of the grids, the others at random."""
    rng = np.random.default_rng(seed)
    point = grid_point(space, number)
    return {path: point[path] if path in point else draw_one(space[path], rng) for path in space}


def draw_one(dimension: Dimension, rng: np.random.Generator) -> Any:
    """One value, each as likely as any other (each factor for loguniform)."""
    if dimension.values is not None:
        return dimension.values[int(rng.integers(len(dimension.values)))]
    return from_unit(dimension, float(rng.random()))


def grid_point(space: Space, number: int) -> Values:
    """The `number`-th combination of the grids, the last changing fastest; they repeat when there are more trials than combinations."""
    grids = {path: dimension.grid for path, dimension in space.items() if dimension.grid is not None}
    combinations = list(itertools.product(*grids.values()))
    return dict(zip(grids, combinations[number % len(combinations)], strict=True))


def to_unit(dimension: Dimension, value: float) -> float:
    """Where a number lies in a range, from 0 at its lower to 1 at its higher end (in factors for loguniform); clipped."""
    low, high = _span(dimension)
    inner = math.log(max(value, low)) if dimension.loguniform is not None else value
    if dimension.loguniform is not None:
        low, high = math.log(low), math.log(high)
    return min(1.0, max(0.0, (inner - low) / (high - low)))


def from_unit(dimension: Dimension, share: float) -> float | int:
    """The value at that place of a range; whole numbers have equal parts of it."""
    low, high = _span(dimension)
    if dimension.integer is not None:
        return min(int(high), int(low) + int(share * (high - low + 1)))
    value = low * (high / low) ** share if dimension.loguniform is not None else low + share * (high - low)
    return min(high, max(low, float(f"{value:.4g}")))


def perturb(space: Space, values: Values, rng: np.random.Generator, step: float, resample: float) -> Values:
    """Explore: each value moves by `step` of its range, up or down, or to a neighbour in its list; or it is drawn anew.

    A move by a share of the range, not by a factor, so that a noise of 0 is no trap. Integers move by one at least.
    """
    moved: Values = {}
    for path, dimension in space.items():
        anew, up = rng.random() < resample, rng.random() < 0.5
        fresh = draw_one(dimension, rng)
        moved[path] = fresh if anew or values.get(path) is None else _move(dimension, values[path], step, up)
    return moved


def _move(dimension: Dimension, value: Any, step: float, up: bool) -> Any:
    if dimension.values is not None:
        if value not in dimension.values:
            return dimension.values[0]
        at = dimension.values.index(value) + (1 if up else -1)
        return dimension.values[min(len(dimension.values) - 1, max(0, at))]
    if dimension.integer is not None:
        low, high = dimension.integer
        by = max(1, round(step * (high - low)))
        return min(high, max(low, int(value) + (by if up else -by)))
    return from_unit(dimension, min(1.0, max(0.0, to_unit(dimension, value) + (step if up else -step))))


def check(space: Space, tree: dict[str, Any], schedule: bool) -> None:
    """Refuse a space that holds impossible settings, before the cluster is used. Raises SettingsError naming the first setting or combination.

    Each end of each range and each value of each list is tried alone, then in all combinations (the first CHECKED of them).
    """
    for path, dimension in space.items():
        for value in ends(dimension):
            _try(tree, {path: value}, schedule, f"search.space.{path}")
    if math.prod(len(ends(dimension)) for dimension in space.values()) > 1:
        for values in itertools.islice(_combinations(space), CHECKED):
            values_text = ", ".join(f"{path}={value}" for path, value in values.items())
            _try(tree, values, schedule, f"search.space, the combination {values_text}")


def ends(dimension: Dimension) -> list[Any]:
    """The values that stand for all of a dimension's when settings are checked."""
    return dimension.values if dimension.values is not None else list(_span(dimension))


def _combinations(space: Space) -> Iterator[Values]:
    for values in itertools.product(*(ends(dimension) for dimension in space.values())):
        yield dict(zip(space, values, strict=True))


def _try(tree: dict[str, Any], values: Values, schedule: bool, where: str) -> None:
    try:
        with_values(tree, values, schedule)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


def with_values(tree: dict[str, Any], values: Values, schedule: bool) -> SelfTrainSettings:
    """The main job's settings with `values` in all generations, or, with `schedule`, as a schedule of one generation."""
    changed = deepcopy(tree)
    if schedule:
        changed |= {"recipe": {**changed["recipe"], "generations": 1}, "schedule": [values]}
    else:
        _with_student(changed, values)
        for path, value in values.items():
            set_value(changed, path, value, "search.space")
    return parse(SelfTrainSettings, changed, "the settings of a trial")


def _with_student(tree: dict[str, Any], values: Values) -> None:
    """A student's model is the teacher's until one of its settings is searched."""
    if tree["models"].get("student") is None and any(path.startswith("models.student.") for path in values):
        tree["models"]["student"] = deepcopy(tree["models"]["teacher"])


def _span(dimension: Dimension) -> tuple[float, float]:
    span = dimension.uniform or dimension.loguniform or dimension.integer
    assert span is not None, "a dimension is a list or a range"
    return span
