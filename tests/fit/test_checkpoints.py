"""A fit in the driver: its checkpoints are durable, resuming changes nothing, and a crash is retried within its budget."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.fit import trainer
from engine.fit.checkpoints import LocalReporter
from engine.fit.source import GatheredSource
from engine.fit.trainer import FitSpec, fit
from engine.gather.training_set import TrainingSet
from engine.ground.failures import WorkersFailedError
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Store
from engine.labels.classes import ClassList
from engine.settings.cluster import ClusterSettings
from tests.fit.sets import MODEL, fit_settings, write_set

CLASSES = ClassList(tuple("abcd"))
SETTINGS = fit_settings(steps=12, checkpoint_every=3, log_every=3, amp=False)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def reporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalReporter:
    monkeypatch.setattr("ray.train.report", lambda *_, **__: None)  # no training function runs here
    step = Store(str(tmp_path / "store")).open().step(StepRecord("fit", 0))
    return LocalReporter(step, lambda _: None)


def test_the_last_two_checkpoints_are_kept_and_the_last_is_found(reporter: LocalReporter) -> None:
    assert reporter.latest(torch.device("cpu")) is None
    for step in (3, 6, 9, 12):
        reporter.save({"step": step}, {"step": step, "objective": {"model": {"w": torch.full((2,), float(step))}}})
    names = sorted(path.name for path in Path(reporter.folder).iterdir())
    assert names == ["state-0000000009.pt", "state-0000000012.pt"]
    latest = reporter.latest(torch.device("cpu"))
    assert latest is not None
    assert latest["step"] == 12
    assert latest["objective"]["model"]["w"].tolist() == [12.0, 12.0]


def run_fit(store: Path, training: TrainingSet, cluster: ClusterSettings, name: str = "run") -> Output:
    labelled = GatheredSource(Output("gather-0", "", "", "0" * 64, {}), training)
    return fit(Run(Store(str(store)), name, cluster), "fit", FitSpec(MODEL, SETTINGS, CLASSES), {"labelled": labelled})


def weights(output: Output) -> bytes:
    return Path(output.folder, str(output.summary["model"]), "model.safetensors").read_bytes()


def test_a_crash_resumes_from_the_last_checkpoint_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = write_set(tmp_path / "set")
    whole = run_fit(tmp_path / "whole", training, ClusterSettings(train={"cpus": 1}))

    crashes = iter([7, 10])
    saved: list[int] = []
    made = LocalReporter.save

    def failing(self: LocalReporter, metrics: dict[str, Any], state: dict[str, Any]) -> None:
        made(self, metrics, state)
        saved.append(state["step"])
        if state["step"] == 6 and next(crashes, None):
            raise RuntimeError("the process had a bad moment")

    monkeypatch.setattr(LocalReporter, "save", failing)
    broken = run_fit(tmp_path / "broken", training, ClusterSettings(train={"cpus": 1}))
    assert "resuming from the last checkpoint" in capsys.readouterr().out
    assert saved == [3, 6, 9, 12], "it went on after the checkpoint and did not start again"
    assert weights(broken) == weights(whole)
    assert not Path(broken.folder, "train").exists(), "checkpoints stay only until the model is committed"

    crashes = iter(range(1, 100))
    with pytest.raises(WorkersFailedError, match=r"cluster\.retries\.max_failures=0.*(?s:.)*bad moment"):
        run_fit(tmp_path / "lost", training, ClusterSettings(train={"cpus": 1}, retries={"max_failures": 0}))


def test_threads_of_the_driver_are_as_before(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    run_fit(tmp_path / "store", write_set(tmp_path / "set"), ClusterSettings(train={"cpus": max(1, before - 1)}))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("changed", "use_gpu"),
    [
        ({"train": {"workers": 2}}, False),
        ({"address": "auto"}, False),
        ({}, True),
        ({"train": {"in_driver": False}}, False),
    ],
)
def test_ray_train_takes_what_is_not_one_local_worker_on_cpus(changed: dict[str, Any], use_gpu: bool) -> None:
    assert trainer.runs_in_driver(ClusterSettings(), use_gpu=False)
    assert not trainer.runs_in_driver(ClusterSettings(**changed), use_gpu)
