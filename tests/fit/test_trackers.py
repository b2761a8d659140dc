"""Trackers: what was logged can be read back, a resumed fit goes on in the same curve, one that fails ends nothing."""

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.fit.trackers import KINDS, Place, Tracking
from engine.ground import storage
from engine.ground.steps import Store


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(Store(str(tmp_path)).open(), "r", "generation 1 fit", "fit-0123")


def report(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "loss": loss, "model": "model-1"}


def lines(place: Place) -> list[dict[str, float]]:
    data = storage.get(place.store.fs, place.path("metrics", "generation-1-fit.jsonl"))
    return [json.loads(line) for line in data.splitlines()]


def test_json_lines_go_on_where_a_killed_fit_resumed(place: Place) -> None:
    first = Tracking(["jsonl"], place)
    for step in (10, 20, 20, 30):
        first.log(report(step, 1 / step))
    assert lines(place) == [{"step": step, "loss": 1 / step} for step in (10, 20, 30)]
    second = pickle.loads(pickle.dumps(Tracking(["jsonl"], place)))
    for step in (30, 40):
        second.log(report(step, 5.0))
    assert [(row["step"], row["loss"]) for row in lines(place)] == [(10, 0.1), (20, 0.05), (30, 5.0), (40, 5.0)]


def test_tensorboard_events_are_those_that_were_logged(place: Place) -> None:
    from tensorboardX.proto.event_pb2 import Event

    tracking = Tracking(["tensorboard"], place)
    for step in (10, 20):
        tracking.log(report(step, 0.5 * step))
    folder = place.path("tensorboard", "generation-1-fit")
    [name] = storage.names(place.store.fs, folder)
    data, seen = storage.get(place.store.fs, f"{folder}/{name}"), []
    while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        seen += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert seen == [(10, "loss", 5.0), (20, "loss", 10.0)]


def test_mlflow_and_wandb_get_names_steps_and_numbers_and_are_resumed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Any] = []

    class Client:
        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            logged.append((experiment, run_name, tags))
            return SimpleNamespace(info=SimpleNamespace(run_id="run7"))

        def log_metric(self, run: str, name: str, value: float, step: int) -> None:
            logged.append((run, name, value, step))

    class Run:
        def log(self, metrics: dict[str, float], step: int) -> None:
            logged.append((metrics, step))

    def init(**names: str) -> Run:
        logged.append(names["id"])
        return Run()

    mlflow = SimpleNamespace(
        tracking=SimpleNamespace(MlflowClient=Client), set_experiment=lambda _: SimpleNamespace(experiment_id="e")
    )
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    KINDS["mlflow"](place).log(10, {"loss": 0.5})
    KINDS["mlflow"](place).log(20, {"loss": 0.25})
    KINDS["wandb"](place).log(10, {"loss": 0.5})
    assert logged == [
        ("e", "r generation 1 fit", {"step": "fit-0123"}),
        ("run7", "loss", 0.5, 10),
        ("run7", "loss", 0.25, 20),
        "fit-0123",
        ({"loss": 0.5}, 10),
    ]


def test_a_missing_library_is_told_before_the_fit_and_a_failing_tracker_ends_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install '\.\[wandb\]'"):
        Tracking(["wandb"], place)

    class Broken:
        def __init__(self, _: Place) -> None:
            self.calls = 0

        def log(self, *_: Any) -> None:
            raise ConnectionError("no server")

    monkeypatch.setitem(KINDS, "jsonl2", Broken)
    tracking = Tracking(["jsonl2", "jsonl"], place)
    tracking.log(report(10, 1.0))
    tracking.log(report(20, 1.0))
    assert capsys.readouterr().out.count("left out from here on: ConnectionError: no server") == 1
    assert len(lines(place)) == 2
