"""Predictions of several labels per image never become one distribution: refused where settings or steps are read, exported as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.export.soft import dense_tables
from engine.export.step_export import open_step
from engine.ground import storage
from engine.ground.steps import read_output
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import SettingsError, parse
from engine.settings.jobs import EvaluateJobSettings, SelectJobSettings
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings, check_several_labels
from jobs.fit import open_selection
from jobs.select import check_predictions
from tests.export.test_export import Made
from tests.fake_run import CLASSES, FakeRun, Image, fake_run
from tests.images import making
from tests.jobs.test_fit_inputs import run_of
from tests.small_run import small_tree


def sigmoid(fake: FakeRun, label: str) -> None:
    """Make the predictions of a step sigmoid ones, by its record."""
    path = f"{fake.steps[label].folder}/record.json"
    record = json.loads(storage.get(fake.store.fs, path))
    record["settings"] = {"activation": "sigmoid"}
    storage.put(fake.store.fs, path, json.dumps(record).encode())


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    made = fake_run(tmp_path, [[Image("b.jpg", -3.0), Image("c.jpg", 3.0)]])
    sigmoid(made, "generation 1 predict")
    return made


def test_one_class_per_image_is_not_predicted_by_a_sigmoid(digits: Path, tmp_path: Path) -> None:
    tree = small_tree(digits, str(tmp_path), predict={"activation": "sigmoid"})
    with pytest.raises(SettingsError, match=r"predict\.activation=sigmoid gives several labels per image"):
        parse(SelfTrainSettings, tree, "here")
    job: dict[str, Any] = {"run": "r", "model": "m", "images": {"uri": "x"}, "predict": {"activation": "sigmoid"}}
    with pytest.raises(SettingsError, match="set task=multilabel"):
        parse(EvaluateJobSettings, job, "here")
    assert parse(EvaluateJobSettings, {**job, "task": "multilabel"}, "here").predict.activation == "sigmoid"


def test_a_sigmoid_has_no_temperature_to_fit() -> None:
    with pytest.raises(SettingsError, match="calibrate fits the temperature of a softmax"):
        parse(PredictSettings, {"activation": "sigmoid", "calibrate": True}, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "set select.targets=hard"),
        ({"targets": "hard", "cut": "adamatch"}, "take another cut"),
        ({"targets": "hard", "score": "margin"}, "take max_probability"),
    ],
)
def test_a_selection_that_needs_a_distribution_is_refused(fake: FakeRun, changes: dict[str, Any], message: str) -> None:
    predictions = fake.steps["generation 1 predict"]
    job = SelectJobSettings.model_validate({"run": "r", "predictions": predictions.step, "select": changes})
    with pytest.raises(ValueError, match=message):
        check_predictions(fake.store, predictions, job, CLASSES)
    check_several_labels(SelectSettings(targets="hard"))


def test_a_selection_of_several_labels_is_not_learned_as_one_distribution(fake: FakeRun) -> None:
    with pytest.raises(ValueError, match="selected from sigmoid predictions"):
        open_selection(run_of(fake), fake.steps["generation 1 select"].step, fake.pool, CLASSES)


def test_sigmoid_predictions_are_exported_as_they_are(tmp_path: Path) -> None:
    """Two labels of .99 and .98 stay so; the rows do not sum to 1."""
    making.folder(tmp_path / "pool", ["+evil.png", "a.png", "sub/b.png", "c.png"])
    made = Made(tmp_path, str(tmp_path / "pool"))
    output = read_output(made.store, made.predictions)
    assert output is not None
    storage.put(made.store.fs, f"{output.folder}/record.json", b'{"settings": {"activation": "sigmoid"}}')
    with pytest.raises(ValueError, match=r"Predict with predict\.top_p=3"):
        list(dense_tables(open_step(made.store, made.predictions)))  # two of three classes are stored

    fake = fake_run(tmp_path / "whole", [[Image("b.jpg", -3.0), Image("c.jpg", 3.0)]])
    sigmoid(fake, "generation 1 predict")
    predictions, manifest = fake.steps["generation 1 predict"], fake.pool.manifest
    plan = {"manifest": manifest.folder.rsplit("/", 1)[-1], "collection": manifest.uri}
    storage.put(fake.store.fs, f"{predictions.folder}/plan.json", json.dumps(plan).encode())
    [(keys, rows)] = list(dense_tables(open_step(fake.store, predictions.step)))
    assert keys == ["b.jpg", "c.jpg"]
    best = 1 / (1 + np.exp(-3))
    np.testing.assert_allclose(rows, [[1 - best, best], [best, 1 - best]], rtol=1e-3)
