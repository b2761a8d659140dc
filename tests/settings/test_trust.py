"""A config from a stranger names no code: neither a class to import nor a file to unpickle."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.models import checkpoint
from engine.models.build import build_model
from engine.recipes.registry import SelfTrainSettings
from engine.search.job import SearchJobSettings
from engine.settings.block import Block, SettingsError, load
from engine.settings.jobs import EvaluateJobSettings, FitJobSettings
from engine.settings.model import ModelSettings

RUN = {
    "recipe": "supervised",
    "run": "r",
    "data": {"labelled": "images", "validation": "images"},
    "models": {"teacher": {"model": "resnet18"}},
    "fits": {"teacher": {"steps": 10, "batch": {"labelled": 4}}},
}
TEACHER = RUN["fits"]["teacher"]  # type: ignore[index]
SPACE = {"fits.teacher.objective": {"choice": ["supervised", "evil.module:Class"]}}
EVIL: list[tuple[type[Block], dict[str, Any]]] = [
    (SelfTrainSettings, {**RUN, "task": "evil.module:Class"}),
    (SelfTrainSettings, {**RUN, "fits": {"teacher": {**TEACHER, "objective": "evil.module:Class"}}}),
    (
        SelfTrainSettings,
        {**RUN, "models": {"teacher": {"model": "resnet18", "model_args": {"checkpoint_path": "evil.pth"}}}},
    ),
    (
        SelfTrainSettings,
        {**RUN, "models": {"teacher": {"model": "resnet18", "model_args": {"pretrained_cfg": {"file": "evil.pth"}}}}},
    ),
    (SearchJobSettings, {**RUN, "search": {"mode": "runs", "space": SPACE}}),
    (
        FitJobSettings,
        {
            "run": "r",
            "data": RUN["data"],
            "model": {"model": "resnet18"},
            "fit": {**TEACHER, "objective": "evil:Class"},
        },
    ),
    (EvaluateJobSettings, {"run": "r", "model": "fit-1", "images": {"uri": "u"}, "task": "evil:Class"}),
]


@pytest.mark.parametrize(("kind", "tree"), EVIL)
def test_code_in_a_config_needs_trust(kind: type[Block], tree: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(SettingsError, match="evil") as caught:
        load(kind, path)
    assert "trust=true" in str(caught.value)
    load(kind, path, ["trust=true"])
    path.write_text(yaml.safe_dump({**tree, "trust": True}))
    load(kind, path)


def test_a_schedule_names_no_code_either(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**RUN, "schedule": [{"fits.student.objective": "evil:Class"}]}))
    with pytest.raises(SettingsError, match=r"schedule\[0\]\.fits\.student\.objective: evil:Class"):
        load(SelfTrainSettings, path)


def test_the_command_line_is_the_users_own_word(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(RUN))
    settings = load(SelfTrainSettings, path, ["task=my.module:Task", "fits.teacher.objective=my.module:Mine"])
    assert settings.task == "my.module:Task"
    assert not settings.trust


def test_a_location_is_no_network() -> None:
    for name in ("hf-hub:evil/model", "hf_hub:evil/model", "local-dir:/evil"):
        with pytest.raises(ValueError, match="is a location"):
            ModelSettings(model=name)


def test_a_model_folder_loads_its_own_weights_and_nothing_else(tmp_path: Path) -> None:
    settings = ModelSettings(model="resnet8_cifar", img_size=32)
    checkpoint.save(tmp_path, build_model(settings, 2), settings, ["a", "b"])
    config = json.loads((tmp_path / "config.json").read_text())
    config["engine"]["model_settings"]["model_args"] = {"checkpoint_path": "/evil.pth"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert checkpoint.load(tmp_path).settings.model_args == {}
