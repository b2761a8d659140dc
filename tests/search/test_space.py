"""The space: draws stay inside and are a function of the seed; what cannot be is refused with the setting's name."""

import math
from typing import Any

import numpy as np
import pytest

from engine.search.search import check_search
from engine.search.space import draw, draw_one, from_unit, grid_point, perturb, to_unit
from engine.search.strategies import propose
from engine.settings.block import SettingsError, parse
from engine.settings.search import Dimension
from tests.search.making import SPACE, searched

UNIFORM = Dimension(uniform=(0.2, 0.8))
LOG = Dimension(loguniform=(1e-4, 1.0))
WHOLE = Dimension(integer=(2, 5))
CHOICE = Dimension(choice=["hard", "soft", [1, 2]])
ROTATION = {"steps": 1, "objective": "rotation", "batch": {"labelled": 1}}
WITHOUT_POOL = {"labelled": "l", "validation": "v"}


def test_draws_fill_their_range_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    uniform = np.array([draw_one(UNIFORM, rng) for _ in range(4000)])
    assert (uniform >= 0.2).all()
    assert (uniform <= 0.8).all()
    assert np.histogram(uniform, 3, (0.2, 0.8))[0].min() > 1150
    logs = np.log10([draw_one(LOG, rng) for _ in range(4000)])
    assert np.histogram(logs, 4, (-4, 0))[0].min() > 850, "every factor of ten is as likely as another"
    whole = [draw_one(WHOLE, rng) for _ in range(4000)]
    assert sorted(set(whole)) == [2, 3, 4, 5]
    assert min(whole.count(value) for value in (2, 3, 4, 5)) > 850, "both ends are as likely as the middle"
    assert all(isinstance(value, int) for value in whole)
    assert {str(draw_one(CHOICE, rng)) for _ in range(100)} == {"hard", "soft", "[1, 2]"}


def test_draws_are_a_function_of_the_seed() -> None:
    space = {"a": UNIFORM, "b": LOG, "c": CHOICE}
    assert draw(space, [0, 1, 2]) == draw(space, [0, 1, 2])
    assert len({str(draw(space, [0, 1, number])) for number in range(50)}) == 50


@pytest.mark.parametrize("dimension", [UNIFORM, LOG])
def test_places_in_a_range_go_there_and_back(dimension: Dimension) -> None:
    for share in (0.0, 0.25, 0.5, 1.0):
        assert to_unit(dimension, from_unit(dimension, share)) == pytest.approx(share, abs=1e-3)
    assert math.log10(from_unit(LOG, 0.5)) == pytest.approx(-2)


def test_grids_are_walked_through_in_all_combinations() -> None:
    space = {"a": Dimension(grid=[1, 2]), "u": UNIFORM, "b": Dimension(grid=["x", "y", "z"])}
    points = [draw(space, [0, 1, n], n) for n in range(6)]
    assert {(point["a"], point["b"]) for point in points} == {(a, b) for a in (1, 2) for b in "xyz"}
    assert [list(point) for point in points] == [["a", "u", "b"]] * 6
    assert grid_point(space, 7) == grid_point(space, 1)
    assert grid_point({"u": UNIFORM}, 3) == {}


def test_perturbed_values_move_by_the_step_and_stay_inside() -> None:
    space = {"u": UNIFORM, "l": LOG, "w": WHOLE, "c": CHOICE}
    seen: dict[str, set[Any]] = {path: set() for path in space}
    for seed in range(60):
        moved = perturb(space, {"u": 0.5, "l": 0.01, "w": 2, "c": "soft"}, np.random.default_rng(seed), 0.2, resample=0)
        for path, value in moved.items():
            seen[path].add(str(value))
    assert seen == {"u": {"0.38", "0.62"}, "l": {"0.001585", "0.0631"}, "w": {"2", "3"}, "c": {"hard", "[1, 2]"}}
    from_zero = [
        perturb({"u": Dimension(uniform=(0, 1))}, {"u": 0.0}, np.random.default_rng(s), 0.2, 0)["u"] for s in range(9)
    ]
    assert 0.2 in from_zero, "0 is no trap"
    fresh = {perturb({"u": UNIFORM}, {"u": 0.5}, np.random.default_rng(s), 0.2, resample=1)["u"] for s in range(30)}
    assert len(fresh) > 25
    assert perturb({"c": CHOICE}, {"c": "gone"}, np.random.default_rng(0), 0.2, 0) == {"c": "hard"}


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({"unifrom": [0, 1]}, "did you mean 'uniform'?"),
        ({}, "found none"),
        ({"uniform": [0, 1], "choice": [1]}, "found ['uniform', 'choice']"),
        ({"uniform": [1, 0]}, "from the lower to the higher end"),
        ({"loguniform": [0, 1]}, "positive ends"),
        ({"choice": []}, "must not be empty"),
        ({"integer": [0.5, 2]}, "integer"),
    ],
)
def test_a_dimension_that_means_nothing_is_refused(dimension: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(Dimension, dimension, "here")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("space", "search", "message"),
    [
        ({"select.treshold": {"uniform": [0, 0.9]}}, {}, "did you mean 'threshold'?"),
        ({"select.threshold": {"uniform": [0.5, 1.5]}}, {}, "search.space.select.threshold"),
        ({"select.cut": {"choice": ["fixed", "flexmach"]}}, {}, "flexmatch"),
        ({"fits.student.noise.pseudo.pad": {"integer": [-1, 2]}}, {}, "search.space.fits.student.noise.pseudo.pad"),
        (
            {
                "select.score": {"choice": ["max_probability", "margin"]},
                "select.classes_per_image": {"integer": [1, 2]},
            },
            {},
            "the combination select.score=margin, select.classes_per_image=2",
        ),
        (
            {"fits.teacher.lr": {"loguniform": [0.01, 1]}},
            {},
            "mode greedy changes select, fits.student, models.student: set mode: runs",
        ),
        ({"data.rows_per_shard": {"integer": [1, 2]}}, {"mode": "runs"}, "alike in all trials"),
        ({"fits.teacher.momentun": {"uniform": [0, 0.9]}}, {"mode": "runs"}, "did you mean 'momentum'?"),
        ({"select.threshold": {"grid": [0.1, 0.2, 0.3]}}, {"trials": 3}, "set trials to at least 4"),
        ({"select.threshold": {"grid": [0.1, 0.2]}}, {"sampler": "optuna"}, "write choice instead of grid"),
    ],
)
def test_impossible_settings_are_refused_before_the_cluster_is_used(
    space: dict[str, Any], search: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_search(searched(search={"space": space, **search}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": {"labelled": "l", "pool": "p"}}, "set data.validation"),
        ({"schedule": [{}, {}]}, "leave out schedule"),
        ({"recipe": "supervised"}, "recipe supervised has none: set mode: runs"),
        ({"recipe": "rotation", "pretext": ROTATION}, "recipe rotation has none: set mode: runs"),
        ({"recipe": "clean_labels", "data": WITHOUT_POOL}, "on a pool alone: set mode: runs, or data.pool"),
    ],
)
def test_a_job_that_cannot_be_searched_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        searched(**changed)


def test_what_can_be_searched_passes() -> None:
    check_search(searched())
    whole = {"fits.teacher.lr": {"loguniform": [0.01, 1]}, "models.student.drop": {"uniform": [0, 0.5]}, **SPACE}
    check_search(searched(search={"mode": "runs", "space": whole}))
    check_search(searched(search={"mode": "runs"}, recipe="rotation", pretext=ROTATION))
    check_search(searched(search={"mode": "runs"}, recipe="clean_labels", data=WITHOUT_POOL))
    check_search(searched(recipe="clean_labels", select={"threshold": 0.5}))


def test_as_many_trials_as_are_asked_for_try_every_combination_of_the_grids() -> None:
    space = {"select.threshold": {"grid": [0.1, 0.2]}, "fits.student.lr": {"grid": [0.01, 0.02]}}
    settings = searched(search={"mode": "runs", "space": space, "trials": 5})
    tried = [tuple(propose(settings, 1, [], number, []).values.values()) for number in range(5)]
    assert {(0.1, 0.01), (0.1, 0.02), (0.2, 0.01), (0.2, 0.02)} <= set(tried)
