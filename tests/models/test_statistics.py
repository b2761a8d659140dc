"""A model that starts from a folder's weights normalises pixels as that folder says; a model that is not finite is not written, read or exported."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.fit.trainer import FitSpec, start_model
from engine.ground.record import StepRecord, json_text
from engine.ground.run import Run
from engine.ground.steps import Step, Store
from engine.labels.classes import ClassList
from engine.metrics.score import Score
from engine.models.build import build_model, normalisation, usual_statistics
from engine.models.checkpoint import initialise, load, save
from engine.models.imported import find_model
from engine.settings.block import SettingsError, parse
from engine.settings.cluster import ClusterSettings
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings

NAMES = ["cat", "dog"]
USUAL = ModelSettings(model="resnet8_cifar", img_size=8, model_args={"width": 8})
OWN = USUAL.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
FIT = FitSettings(steps=1, batch={"labelled": 1})


def start(folder: Path, saved: ModelSettings, asked: ModelSettings) -> ModelSettings:
    """The model of a fit with settings `asked` that starts from a folder saved with settings `saved`."""
    save(folder / "model", build_model(saved, 2), saved, NAMES)
    run = Run(Store(str(folder / "store")), "r", ClusterSettings())
    spec = FitSpec(asked, FIT, ClassList(tuple(NAMES)), find_model(run, str(folder / "model")))
    return start_model(spec, run.store)


def test_the_statistics_are_those_of_the_folder(tmp_path: Path) -> None:
    model = start(tmp_path, OWN, USUAL)
    assert (model.mean, model.std) == (OWN.mean, OWN.std)


def test_the_usual_statistics_name_the_same_step_as_before(tmp_path: Path) -> None:
    assert start(tmp_path, USUAL, USUAL) == USUAL


def test_statistics_that_are_set_stay_and_the_difference_is_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_ones = USUAL.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    model = start(tmp_path, OWN, set_ones)
    assert (model.mean, model.std) == ((0.5, 0.5, 0.5), OWN.std)
    assert "its weights saw mean=(0.1, 0.2, 0.3)" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["resnet8_cifar", "test_vit", "test_resnet.r160_in1k"])
def test_usual_statistics_are_those_of_the_network(name: str) -> None:
    settings = ModelSettings(model=name, img_size=64)
    norm = normalisation(settings, build_model(settings, 2))
    assert usual_statistics(settings) == (norm.mean, norm.std)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    model = build_model(USUAL, 2)
    save(tmp_path, model, USUAL, NAMES)
    with torch.no_grad():
        next(model.parameters())[0] = value
    with pytest.raises(
        ValueError, match=r"1 of \d+ tensors are not finite \(conv1\.weight\)|1 of \d+ tensors are not finite"
    ):
        save(tmp_path / "other", model, USUAL, NAMES)
    assert not (tmp_path / "other").exists()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for read in (load, lambda folder: initialise(build_model(USUAL, 2), folder)):
        with pytest.raises(ValueError, match="1 tensors are not finite"):
            read(tmp_path)


def test_json_has_no_nan(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    nan = float("nan")
    score = Score("accuracy", 0.5, nan, nan, 2, details={"macro_f1": [nan, 0.5, float("inf")]})
    assert json.loads(json_text(score.to_json()), parse_constant=refuse)["details"] == {"macro_f1": [None, 0.5, None]}
    step = Step(Store(str(tmp_path)), StepRecord("evaluate", 1))
    committed = step.commit([], score.to_json(), 0.0)
    text = (Path(committed.folder) / "step.json").read_text()
    summary = json.loads(text, parse_constant=refuse)["summary"]
    again = Score.from_json(summary)
    assert str(again) == str(score)
    assert asdict(again)["low"] != asdict(again)["low"]  # NaN again
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = StepRecord("fit", 1, {"lr": nan}).name


def test_settings_are_finite() -> None:
    tree = {"steps": 1, "batch": {"labelled": 1}, "lr": float("inf")}
    with pytest.raises(SettingsError, match=r"lr: a number has to be finite"):
        parse(FitSettings, tree, "here")
