"""What a selection needs of its predictions is refused when the settings are read or the classes are known: before anything is computed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.recipes.registry import SelfTrainSettings
from engine.search.search import check_search
from engine.settings.block import SettingsError, parse
from jobs import select
from tests.fake_run import Image, fake_run
from tests.search.making import searched
from tests.small_run import run_tree

CLASSES = ["bird", "cat", "dog"]
IMPOSSIBLE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"score": "entropy"},
        {},
        "select.score=entropy is not stored with the predictions: set predict.extra_scores=[entropy]",
    ),
    ({"score": "energy", "per_class": 2}, {"extra_scores": ["entropy"]}, "set predict.extra_scores=[energy]"),
    ({"score": "margin"}, {"top_p": 1}, "predict.top_p=1 stores one: set predict.top_p=2"),
    (
        {"classes_per_image": 3},
        {"top_p": 2},
        "is more than the 2 classes stored per image: lower it, or set predict.top_p=3",
    ),
]
WITH_CLASSES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"temperature": 0.5}, {"top_p": 2}, "set predict.log_sum_exp=[0.5] or predict.top_p=3, or select.temperature=1"),
    ({"temperature": 0.5}, {"top_p": 2, "log_sum_exp": [2.0]}, "set predict.log_sum_exp=[0.5]"),
    ({"thresholds": {"cow": 0.9}}, {}, "select.thresholds: no class is called cow; the classes are bird, cat, dog"),
    ({"per_class": 2, "prior": {"cow": 1, "cat": 1, "dog": 1, "bird": 1}}, {}, "select.prior: no class is called cow"),
    ({"per_class": 2, "prior": {"cat": 1, "dog": 1}}, {}, "select.prior: bird has no weight"),
    ({"classes_per_image": 4}, {}, "is more than the 3 classes there are: lower it"),
]
POSSIBLE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"score": "energy", "per_class": 2}, {"extra_scores": ["energy"]}),
    ({"temperature": 0.5}, {"top_p": 2, "log_sum_exp": [0.5]}),
    ({"temperature": 0.5}, {"top_p": 3}),
    ({"temperature": 0.5, "targets": "hard"}, {"top_p": 2}),
    ({"thresholds": {"cat": 0.9}, "threshold": 0.5}, {}),
]


def settings(select: dict[str, Any], predict: dict[str, Any], **changed: Any) -> SelfTrainSettings:
    fit = {"steps": 1, "batch": {"labelled": 1}}
    flat = {
        "run": "r",
        "data": {"labelled": "l", "pool": "p"},
        "teacher_model": {"model": "resnet18"},
        "teacher": fit,
        "student": fit,
        "generations": 2,
        "select": select,
        "predict": predict,
    }
    return parse(SelfTrainSettings, run_tree(**{**flat, **changed}), "test")


def known(**changed: Any) -> dict[str, Any]:
    return {"data": {"labelled": "l", "pool": "p", "classes": CLASSES}, **changed}


@pytest.mark.parametrize(("chosen", "predict", "message"), IMPOSSIBLE)
def test_what_is_not_stored_is_refused_when_the_settings_are_read(
    chosen: dict[str, Any], predict: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        settings(chosen, predict)
    later = [{}, {f"select.{name}": value for name, value in chosen.items()}]
    with pytest.raises(SettingsError, match=f"schedule of generation 2(.|\n)*{re.escape(message)}"):
        settings({}, predict, schedule=later)


@pytest.mark.parametrize(("chosen", "predict", "message"), WITH_CLASSES)
def test_what_depends_on_the_classes_is_refused_as_soon_as_they_are_known(
    chosen: dict[str, Any], predict: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        settings(chosen, predict, **known())
    unknown = settings(chosen, predict)
    with pytest.raises(ValueError, match=re.escape(message)):
        unknown.check_selections(CLASSES)
    later = settings({}, predict, schedule=[{}, {f"select.{name}": value for name, value in chosen.items()}])
    with pytest.raises(ValueError, match=f"schedule of generation 2: .*{re.escape(message)}"):
        later.check_selections(CLASSES)


@pytest.mark.parametrize(("chosen", "predict"), POSSIBLE)
def test_what_is_stored_passes(chosen: dict[str, Any], predict: dict[str, Any]) -> None:
    assert settings(chosen, predict, **known()).recipe.num_generations == 2
    settings(chosen, predict).check_selections(CLASSES)


def test_a_recipe_that_selects_nothing_may_have_any_selection() -> None:
    alone = {"recipe": "noisy_student", "generations": 0}
    assert settings({"score": "entropy"}, {}, **alone).select.score == "entropy"


def test_a_search_refuses_values_that_need_more_than_is_stored() -> None:
    space = {"select.score": {"choice": ["max_probability", "entropy"]}}
    with pytest.raises(
        SettingsError, match=r"search\.space\.select\.score(.|\n)*set predict\.extra_scores=\[entropy\]"
    ):
        check_search(searched(search={"space": space}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("select.score=entropy", "set predict.extra_scores=[entropy]"),
        ("select.thresholds={cow: 0.9}", "no class is called cow"),
        ("select.classes_per_image=3", "is more than the 2 classes stored per image"),
    ],
)
def test_the_select_job_refuses_before_it_computes(
    change: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, [[Image("cat/1.jpg", 2.0), Image("dog/1.jpg", -2.0)]])
    predictions = run.steps["generation 1 predict"].step
    before = set(run.store.steps())
    config = tmp_path / "select.yaml"
    config.write_text(json.dumps({"run": "s", "store": run.store.uri, "predictions": predictions}))
    monkeypatch.setattr("sys.argv", ["select", str(config), change])
    monkeypatch.setattr(select, "connect", lambda _: pytest.fail("the cluster was used"))
    with pytest.raises(ValueError, match=re.escape(message)):
        select.main()
    assert set(run.store.steps()) == before
