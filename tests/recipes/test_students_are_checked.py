"""What a student's settings name is looked up when they are read, not after the teacher's fit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.fit.check import check_buildable
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import SettingsError, parse
from engine.settings.model import ModelSettings
from tests.small_run import small_settings, small_tree


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"batch": {"labelled": 16, "psuedo": 32}, "noise": {}}, "stream 'psuedo' is unknown"),
        ({"noise": {"pool": {"hflip": 0}}}, "noise names the stream 'pool'"),
        ({"stream_weight": {"pool": 1.0}}, "stream_weight names the stream 'pool'"),
        ({"loss": "kll"}, "loss 'kll' is unknown"),
        ({"objective": "rotatoin"}, "did you mean 'rotation'"),
        ({"objective_args": {"lossargs": {}}}, "unknown setting; did you mean 'loss_args'"),
    ],
)
def test_a_students_fit_is_looked_up(tmp_path: Path, student: dict[str, Any], message: str) -> None:
    tree = small_tree(tmp_path, "store")
    tree["fits"]["student"] |= student
    with pytest.raises(SettingsError, match=rf"(?s)fits\.student.*{message}"):
        parse(SelfTrainSettings, tree, "here")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"model": "resnet81_cifar"}, "unknown to timm"),
        ({"model": "vgg11", "drop_path": 0.1}, "has no drop_path"),
        ({"model": "resnet8_cifar", "model_args": {"widht": 8}}, "cannot be built"),
    ],
)
def test_a_students_network_is_built(tmp_path: Path, model: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=rf"(the student of generation 1|models\.student).*{message}"):
        small_settings(tmp_path, "store", student_model=model)


def test_a_schedule_is_looked_up_too(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?s)generation 1: .*loss 'kll' is unknown"):
        small_settings(tmp_path, "store", schedule=[{"fits.student.loss": "kll"}])


def test_looking_up_leaves_the_random_state(tmp_path: Path) -> None:
    small_settings(tmp_path, "store")
    before = torch.random.get_rng_state()
    check_buildable(ModelSettings(model="resnet8_cifar", drop_path=0.15).model_dump_json())
    assert torch.equal(before, torch.random.get_rng_state())
