"""Where the numbers of a fit go while it trains: one small interface, fed from Train's controller.

    RUN/metrics/<label>.jsonl            one line a report, for anything that reads JSON
    RUN/tensorboard/<label>/events…      tensorboard --logdir STORE/runs
    MLflow, Weights & Biases             extras (pip install '.[mlflow]', '.[wandb]'); they find their server in the environment

Files are put whole each time, as object stores want it; a fit that resumes goes on in the same file.
"""

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.record import json_text
from engine.ground.steps import Store

PROJECT = "self-training"
LIBRARIES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""What a tracker imports."""


class Tracker(Protocol):
    """Takes the numbers of one step of a fit after the other."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep `metrics` of `step`; when it returns they are out of this process."""


@dataclass(frozen=True)
class Place:
    """What a tracker may call a fit: its run, its label in the run, its step's name; and the run's folder."""

    store: Store
    run: str
    label: str
    step: str

    @property
    def slug(self) -> str:
        return self.label.replace(" ", "-")

    def path(self, *parts: str) -> str:
        return "/".join([self.store.root, "runs", self.run, *parts])


class JsonLines:
    """RUN/metrics/<label>.jsonl. Lines at or after the first step of a resumed fit are replaced by those that it reports."""

    def __init__(self, place: Place) -> None:
        self.place, self.path = place, place.path("metrics", f"{place.slug}.jsonl")
        self.rows: list[dict[str, Any]] | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.rows is None:
            self.rows = [row for row in self._found() if row["step"] < step]
        self.rows.append({"step": step, **metrics})
        storage.put(self.place.store.fs, self.path, "".join(f"{json_text(row)}\n" for row in self.rows).encode())

    def _found(self) -> list[dict[str, Any]]:
        if not storage.exists(self.place.store.fs, self.path):
            return []
        return [json.loads(line) for line in storage.get(self.place.store.fs, self.path).splitlines()]


class TensorBoard:
    """RUN/tensorboard/<label>/: an events file for each attempt, which TensorBoard joins."""

    def __init__(self, place: Place) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self.place = place
        self.folder = tempfile.TemporaryDirectory()
        # not SummaryWriter: it writes in a thread of its own and its flush does not wait for it
        self.writer = EventsWriter(f"{self.folder.name}/events")
        self.begun = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar

        if not self.begun:  # what an attempt before this one wrote from here on is void
            self.begun = True
            self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        for name, value in metrics.items():
            self._write(Event(step=step, summary=scalar(name, value)))
        self.writer.flush()
        for file in Path(self.folder.name).iterdir():
            path = self.place.path("tensorboard", self.place.slug, file.name)
            storage.put(self.place.store.fs, path, file.read_bytes())

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self.writer.write_event(event)


class MLflow:
    """An MLflow run a fit; MLFLOW_TRACKING_URI says where. Its id is kept beside the run, so that a resumed fit goes on in it."""

    def __init__(self, place: Place) -> None:
        import mlflow

        self.client = mlflow.tracking.MlflowClient()
        fs, path = place.store.fs, place.path("metrics", f"{place.slug}.mlflow")
        if storage.exists(fs, path):
            self.run = storage.get(fs, path).decode()
            return
        experiment = mlflow.set_experiment(PROJECT).experiment_id
        name = f"{place.run} {place.label}"
        self.run = self.client.create_run(experiment, run_name=name, tags={"step": place.step}).info.run_id
        storage.put(fs, path, self.run.encode())

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.client.log_metric(self.run, name, value, step=step)


class WandB:
    """A Weights & Biases run a fit, called by the step, so that a resumed fit goes on in it; WANDB_API_KEY says whose."""

    def __init__(self, place: Place) -> None:
        import wandb

        name = f"{place.run} {place.label}"
        self.run = wandb.init(project=PROJECT, name=name, group=place.run, id=place.step, resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)


KINDS: dict[str, Callable[[Place], Tracker]] = {
    "jsonl": JsonLines,
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}


class Tracking:
    """All trackers of a fit, made in the process that first logs. A failing tracker is logged and skipped: it never ends a fit."""

    def __init__(self, names: list[str], place: Place) -> None:
        for name in names:
            library = LIBRARIES.get(name)
            if library is not None and importlib.util.find_spec(library) is None:
                raise ValueError(
                    f"cluster.train.trackers: {name} is not installed: pip install '.[{name}]', or leave it out"
                )
        self.names, self.place = names, place
        self.trackers: dict[str, Tracker] = {}
        self.last = -1

    def log(self, report: Mapping[str, Any]) -> None:
        """Hand on the numbers of a worker's report; those of a step that was seen are not repeated."""
        step = int(report["step"])
        if step <= self.last:
            return
        self.last = step
        metrics = {k: float(v) for k, v in report.items() if isinstance(v, int | float) and k != "step"}
        for name in list(self.names):
            try:
                self._tracker(name).log(step, metrics)
            except Exception as error:
                log_event(self.place.label, f"tracker {name} is left out from here on: {type(error).__name__}: {error}")
                self.names = [other for other in self.names if other != name]

    def _tracker(self, name: str) -> Tracker:
        if name not in self.trackers:
            self.trackers[name] = KINDS[name](self.place)
        return self.trackers[name]
