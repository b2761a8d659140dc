"""What a fit's driver makes of its workers' errors."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.train import ScalingConfig, WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

from engine.fit import trainer, worker
from engine.fit.checkpoints import TrainReporter
from engine.fit.loop import DivergedError
from engine.fit.progress import WriteProgress
from engine.fit.trackers import Place, Tracking
from engine.fit.trainer import check_streams, user_error_of
from engine.fit.worker import FitJob
from engine.ground.record import StepRecord
from engine.ground.steps import Store, StoreError
from engine.settings.block import SettingsError
from engine.settings.cluster import ClusterSettings
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from tests.fit.sets import fit_settings


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("too many are broken"), ValueError("too many are broken")),
        (DivergedError("lower fit.lr"), ValueError("lower fit.lr")),
        (OSError(errno.ENOSPC, "full", "/disk/model"), StoreError("/disk/model: cannot be written")),
        (RuntimeError("a bug"), None),
    ],
)
def test_what_a_person_can_mend_is_found_among_the_failures(
    raised: Exception, told: Exception | None, tmp_path: Path
) -> None:
    step = Store(str(tmp_path / "store")).open().step(StepRecord("fit", 0))
    failures = {0: RuntimeError("connection closed by peer"), 1: UserExceptionWithTraceback(raised, "Traceback …")}
    found = user_error_of(WorkerGroupError("…", failures), step)
    assert type(found) is type(told)
    assert told is None or str(found).startswith(str(told))


@pytest.mark.parametrize("error", [DivergedError("lower fit.lr"), SettingsError("loss kll is unknown")])
def test_what_no_retry_can_correct_ends_the_workers_in_order(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train repeats a fit whose worker raised, three times by default: NaN came three times more."""

    def fail(job: FitJob, rank: worker.Rank) -> None:  # noqa: ARG001
        raise error

    class Result:
        metrics: dict[str, float] | None = None

    class Trainer:
        def __init__(self, function: Callable[[dict[str, FitJob]], None], **options: Any) -> None:
            self.start = lambda: function(options["train_loop_config"])

        def fit(self) -> Result:
            self.start()
            return Result()

    step = Store(str(tmp_path / "store")).open().step(StepRecord("fit", 0))
    settings = FitSettings(steps=1, batch={"labelled": 1})
    job = FitJob(step, ModelSettings(model="resnet8_cifar"), settings, {}, ("a", "b"), None, TrainReporter())
    monkeypatch.setattr(worker, "train_rank", fail)
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: Alone)
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(trainer, "TorchTrainer", Trainer)
    progress = WriteProgress(step, Tracking([], Place(step.store, "run", "fit", step.name)))
    with pytest.raises(ValueError, match=str(error)):
        trainer.train_on_workers(ClusterSettings(), job, ScalingConfig(), progress)
    monkeypatch.setattr(worker, "train_rank", lambda job, rank: None)  # noqa: ARG005
    assert (
        trainer.train_on_workers(ClusterSettings(), job, ScalingConfig(), progress) == {}
    )  # the next attempt is its own
    monkeypatch.setattr(worker, "train_rank", fail)
    with pytest.raises(type(error)):  # in the driver, where nothing is retried by Ray, it is raised
        worker.train_worker({"job": replace(job, driver_threads=1)})


class Alone:
    """The context of the only worker."""

    @staticmethod
    def get_world_rank() -> int:
        return 0

    @staticmethod
    def get_world_size() -> int:
        return 1


def test_a_stream_smaller_than_its_batch_is_told_and_an_empty_one_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A single pseudo-label would fill a batch of 192 unsaid."""
    settings = fit_settings(batch={"labelled": 4, "pseudo": 192})
    few: Any = {
        "labelled": SimpleNamespace(draws=4, target_kind="distribution"),
        "pseudo": SimpleNamespace(draws=1, target_kind="distribution"),
    }
    check_streams("student fit", settings, few)
    printed = capsys.readouterr().out
    assert "the stream 'pseudo' has 1 images for a batch of 192" in printed
    assert "labelled" not in printed
    few["pseudo"].draws = 0
    with pytest.raises(ValueError, match="'pseudo' is empty"):
        check_streams("student fit", settings, few)
