"""timm's own folder, which has no label names, is something to start from; what it would predict is not known."""

import json
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from engine.fit.trainer import FitSpec, start_model
from engine.ground.run import Run
from engine.ground.steps import Store
from engine.labels.classes import ClassList
from engine.models.build import build_model
from engine.models.checkpoint import initialise, load
from engine.models.fetch import fetch_model
from engine.models.imported import find_model
from engine.settings.cluster import ClusterSettings
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings

NAMES = ("cat", "dog", "newt")
SETTINGS = ModelSettings(model="test_resnet", img_size=32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_for_hf(timm.create_model("test_resnet", num_classes=3), tmp_path / "timm", safe_serialization=True)
    return tmp_path / "timm"


def test_its_weights_are_started_from_and_its_classes_are_not(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (folder / "config.json").write_text(json.dumps(config))
    run = Run(Store(str(tmp_path / "store")), "r", ClusterSettings())
    init = find_model(run, str(folder), as_init=True)
    spec = FitSpec(SETTINGS, FitSettings(steps=1, batch={"labelled": 1}), ClassList(NAMES), init)
    assert start_model(spec, run.store).mean == (0.1, 0.2, 0.3)
    model = build_model(SETTINGS, 3)
    head = model.get_classifier().weight.clone()  # type: ignore[operator]
    report = initialise(model, fetch_model(init, run.store.fs), NAMES)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert report.mismatched == ["fc.weight", "fc.bias"]
    assert torch.equal(model.get_classifier().weight, head)  # type: ignore[operator]
    assert torch.equal(model.state_dict()["conv1.0.weight"], theirs.state_dict()["conv1.0.weight"])


def test_it_cannot_predict(folder: Path, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "store")), "r", ClusterSettings())
    for read in (load, lambda one: find_model(run, str(one))):
        with pytest.raises(ValueError, match=r"config\.json: no label_names"):
            read(folder)


def test_a_damaged_folder_is_no_start(folder: Path, tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "store")), "r", ClusterSettings())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        find_model(run, str(folder), as_init=True)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        find_model(run, str(folder), as_init=True)
