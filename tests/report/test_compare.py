"""Recipes compared: like with like, the cost in images, intervals over images or states, and a picture that can be parsed."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.labels.classes import ClassList
from engine.metrics.interval import wilson
from engine.recipes import efficientnet
from engine.recipes.registry import SelfTrainSettings
from engine.report.compare import (
    Arm,
    Outcome,
    Scored,
    difference_to,
    markdown,
    page,
    refuse_unlike,
    rows,
    score_of,
    svg,
)
from engine.report.cost import Cost, evaluated, of_step, planned
from engine.settings.block import load, parse
from engine.settings.run import SEED_STRIDE
from engine.tasks.classify import ROWS, Classify
from jobs.compare import compare, with_seed
from tests.small_run import WITHOUT_GENERATIONS, run_tree

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"


def settings(**changed: Any) -> SelfTrainSettings:
    fit = {"steps": 10, "batch": {"labelled": 4}}
    flat: dict[str, Any] = {
        "run": "r",
        "recipe": "noisy_student",
        **({} if changed.get("recipe") in WITHOUT_GENERATIONS else {"generations": 2}),
        "data": {"labelled": "l", "pool": "p"},
        "teacher_model": {"model": "resnet18"},
        "teacher": fit,
        "student": {"steps": 5, "batch": {"labelled": 4, "pseudo": 8}},
        "select": {"threshold": 0.5},
        **changed,
    }
    return parse(SelfTrainSettings, run_tree(**flat), "test")


def test_only_like_is_compared_with_like() -> None:
    refuse_unlike({"a": settings(), "b": settings(recipe="threshold")})
    for changed, told in (
        ({"data": {"labelled": "other", "pool": "p"}}, "data.labelled: l -> other"),
        ({"teacher_model": {"model": "resnet34"}}, "models.teacher.model: resnet18 -> resnet34"),
        ({"student_model": {"model": "resnet50"}}, "another network"),
    ):
        with pytest.raises(ValueError, match=told):
            refuse_unlike({"a": settings(), "b": settings(**changed)})


def test_planned_images_are_those_of_every_fit() -> None:
    tune = {"steps": 1, "batch": {"labelled": 2}}
    assert planned(settings()) == 40 + 2 * 60
    assert planned(settings(finetune=tune)) == 40 + 2 * 62
    assert planned(settings(recipe="supervised")) == 40
    assert planned(settings(recipe="threshold", finetune=tune)) == 40 + 2 * 60
    assert planned(settings(recipe="clean_labels", folds=3)) == 5 * 40 + 2 * 60
    assert planned(settings(recipe="clean_labels", data={"labelled": "l"})) == 7 * 40
    assert planned(settings(recipe="self_distillation", student=None)) == 3 * 40
    assert planned(settings(schedule=[{}, {"fits.student.steps": 50}])) == 40 + 60 + 600
    head_first = {"steps": 9, "batch": {"labelled": 4}, "freeze_steps": 6}
    assert planned(settings(recipe="supervised", teacher=head_first)) == 3 * 4 + 6 * 4 / 3, "forward alone is a third"
    student = {"steps": 5, "batch": {"labelled": 4}}
    noisy = {"teacher_model": {"model": "efficientnet_b0"}, "published_noise": True, "student": student}
    assert planned(settings(**noisy)) == 40 + 2 * 5 * (4 + efficientnet.SIZES["b0"].ratio * 4)
    tagging = {"steps": 3, "batch": {"tags": 7}}
    assert planned(settings(recipe="hashtags", tags={"table": "t"}, tagging=tagging)) == 21 + 40


def test_the_cost_of_a_step_is_in_its_record() -> None:
    fit = {"verb": "fit", "settings": {"fit": {"steps": 5, "batch": {"labelled": 4, "pseudo": 8}}}}
    assert of_step(fit, {}) == Cost(trained=60)
    for views, passes in (("one", 100), ("flip", 200)):
        assert of_step({"verb": "predict", "settings": {"views": views}}, {"images": 100}) == Cost(labelled=passes)
    assert of_step({"verb": "evaluate", "settings": {}}, {"images": 9}) == Cost()
    assert (Cost(2, 3) + Cost(1, 1)).passes == 13


def test_predictions_made_to_be_evaluated_cost_nothing_those_that_are_selected_from_do() -> None:
    def record(verb: str, predictions: str) -> dict[str, Any]:
        return {"verb": verb, "inputs": {"predictions": predictions}}

    records = [record("evaluate", "a"), record("calibrate", "b"), record("evaluate", "c"), record("select", "c")]
    assert evaluated([*records, {"verb": "fit", "inputs": {}}]) == {"a", "b"}


def outcome(right: np.ndarray, trained: int = 100) -> Outcome:
    row = {"pseudo_labels": 10, "pseudo_correct": 0.5}
    measure = Classify(ClassList(("a", "b"))).measure
    number = np.arange(len(right), dtype=np.int32)
    columns = [0 * number, number, 0 * number, (~right).astype(np.int32), np.full(len(right), 0.8, np.float32)]
    columns.append((~right).astype(np.int32) + 1)
    answers = pa.table(columns, schema=ROWS)
    return Outcome(row, Cost(trained, 7), {"test": Scored(measure.score(answers), answers, measure)})


def test_one_state_has_the_interval_of_its_images_several_that_of_the_states() -> None:
    a, b = np.arange(100) < 80, np.arange(100) < 90
    one = score_of([outcome(a)], "test")
    assert one is not None
    assert (one.value, one.low, one.high) == (0.8, *wilson(80, 100))
    two = score_of([outcome(a), outcome(b)], "test")
    assert two is not None
    assert two.value == pytest.approx(0.85)
    assert two.high - two.value == pytest.approx(12.706 * 0.05, rel=1e-3)
    assert score_of([outcome(a)], "validation") is None
    paired = difference_to([outcome(a)], [outcome(b)], "test")
    assert paired is not None
    assert paired.value == pytest.approx(0.1)
    assert paired.low > 0


def test_the_table_says_who_went_over_the_budget_and_the_picture_can_be_parsed() -> None:
    a, b = np.arange(100) < 80, np.arange(100) < 90
    table = rows([Arm("a<b", "supervised", [outcome(a)]), Arm("b", "threshold", [outcome(b, trained=102)])], budget=100)
    assert [row["over_budget"] for row in table] == [False, True]
    assert table[0]["difference"] is None
    assert table[1]["difference"][0] == pytest.approx(0.1)
    text = markdown(table)
    assert "| b | 1 | - | 90.00 [82.56, 94.48] | +10.00 [" in text
    assert "102 (over budget)" in text
    html = page("c <1>", table, [0], 100)
    assert "a&lt;b" in html
    assert "c &lt;1&gt;" in html
    assert "102 (over budget)" in html
    assert "+10.00 [" in html
    assert "default-src 'none'" in html
    drawn = [text.text for text in ElementTree.fromstring(svg(table)).iter("{http://www.w3.org/2000/svg}text")]
    assert {"a<b", "b", "score on test images, % (95 % interval)"} <= set(drawn)


def test_recipes_on_raw_images_are_planned_by_their_own_fits() -> None:
    pretext = {"steps": 3, "batch": {"pool": 8}, "objective": "rotation"}
    assert planned(settings(recipe="rotation", pretext=pretext, student=None)) == 3 * 4 * 8 + 10 * 4
    assert planned(settings(pretext=pretext)) == planned(settings()) + 3 * 4 * 8
    together = {"steps": 10, "batch": {"labelled": 4, "pool": 12}}
    assert planned(settings(recipe="fixmatch", teacher={**together, "objective": "fixmatch"}, student=None)) == 10 * (
        4 + 2 * 12
    )
    meta = {
        "teacher": {**together, "objective": "meta_pseudo_labels"},
        "finetune": {"steps": 2, "batch": {"labelled": 4}},
    }
    assert planned(settings(recipe="meta_pseudo_labels", student=None, **meta)) == round(10 * (4 + 24 + 12 + 8 / 3)) + 8
    for arguments, feedback in (({"labels": "soft"}, 4 + 8), ({"feedback": "product"}, 4)):
        meta["teacher"]["objective_args"] = arguments
        assert planned(settings(recipe="meta_pseudo_labels", student=None, **meta)) == 10 * (40 + feedback) + 8


def test_a_state_moves_the_seed_of_every_fit_and_a_budget_is_checked_before_anything_runs(tmp_path: Path) -> None:
    moved = with_seed(settings(), "r-1", 1)
    assert (moved.run, moved.seed) == ("r-1", 1)
    fits = moved.fits.named().values()
    assert [moved.seeded(fit).seed for fit in fits] == [SEED_STRIDE] * 2
    assert [settings().seeded(fit) for fit in settings().fits.named().values()] == list(
        settings().fits.named().values()
    )
    with pytest.raises(ValueError, match="160 images, over the budget of 100"):
        compare({"a": settings()}, str(tmp_path), "c", [0], budget=100)
    assert not any(tmp_path.iterdir())


def test_the_configs_of_one_data_set_can_be_compared() -> None:
    same = ["data.labelled=l", "data.pool=p"]
    arms = {
        name: load(SelfTrainSettings, CONFIGS / f"{name}.yaml", same) for name in ("self_distillation", "clean_labels")
    }
    refuse_unlike(arms)
    others = {
        **arms,
        "elsewhere": load(SelfTrainSettings, CONFIGS / "clean_labels.yaml", ["data.labelled=m", "data.pool=p"]),
    }
    with pytest.raises(ValueError, match="elsewhere cannot be compared"):
        refuse_unlike(others)
