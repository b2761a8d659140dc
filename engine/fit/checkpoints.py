"""Where a training worker leaves its checkpoints and reports: with Ray Train, or, for one worker inside the driver, in the step's folder.

Ray Train starts a controller, workers and helpers, each a process that imports torch: half a minute on a laptop before the first step. A fit of one
local worker on CPUs therefore runs in the driver (Ray Train's local mode, `num_workers=0`), which keeps no checkpoints of its own; `LocalReporter`
keeps them as durable files, so that a killed fit resumes in the same way.
"""

import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ray.train
import torch
from ray.train import Checkpoint

from engine.ground import storage
from engine.ground.steps import Step

STATE = "state.pt"
FOLDER = "train"
"""Below the step's folder: checkpoints, until the model is committed."""
NUM_TO_KEEP = 2
LOCAL = re.compile(r"state-(\d{10})\.pt")

State = dict[str, Any]
"""`step` and `objective`: tensors and plain values, so that it loads with `weights_only`."""


class Reporter(Protocol):
    """How a rank reports metrics and checkpoints, and finds the last checkpoint again."""

    def latest(self, device: torch.device) -> State | None:
        """The last checkpoint, tensors on `device`; None when there is none."""

    def report(self, metrics: dict[str, Any]) -> None:
        """Report the metrics of a log interval; all ranks call it."""

    def save(self, metrics: dict[str, Any], state: State) -> None:
        """Report metrics with a checkpoint; all ranks call it, rank 0's `state` is kept."""

    def is_preemption_announced(self) -> bool:
        """Whether a machine of this fit is about to be taken away."""


class TrainReporter:
    """Through Ray Train: checkpoints go to the run's storage, metrics to the controller."""

    def latest(self, device: torch.device) -> State | None:
        latest = ray.train.get_checkpoint()
        if latest is None:
            return None
        with latest.as_directory() as folder:
            return torch.load(Path(folder) / STATE, map_location=device, weights_only=True)

    def report(self, metrics: dict[str, Any]) -> None:
        ray.train.report(metrics)

    def save(self, metrics: dict[str, Any], state: State) -> None:
        is_first = ray.train.get_context().get_world_rank() == 0
        with tempfile.TemporaryDirectory() as folder:
            if is_first:
                torch.save(state, Path(folder) / STATE)
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder) if is_first else None)

    def is_preemption_announced(self) -> bool:
        return ray.train.get_preemption_info() is not None


class LocalReporter:
    """For one worker in the driver: each checkpoint is one file, put whole, named by its step; the last two are kept.

    `on_metrics`: called with the metrics of every report that has a loss (progress and trackers).
    """

    def __init__(self, step: Step, on_metrics: Callable[[dict[str, Any]], None]) -> None:
        self.step, self.on_metrics = step, on_metrics

    @property
    def folder(self) -> str:
        return f"{self.step.folder}/{FOLDER}"

    def _saved(self) -> list[str]:
        """Names of the checkpoints, oldest first."""
        return sorted(name for name in storage.names(self.step.fs, self.folder) if LOCAL.fullmatch(name))

    def latest(self, device: torch.device) -> State | None:
        names = self._saved()
        if not names:
            return None
        data = storage.get(self.step.fs, f"{self.folder}/{names[-1]}")
        return torch.load(io.BytesIO(data), map_location=device, weights_only=True)

    def report(self, metrics: dict[str, Any]) -> None:
        ray.train.report(metrics)
        if "loss" in metrics:
            self.on_metrics(metrics)

    def save(self, metrics: dict[str, Any], state: State) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        storage.put(self.step.fs, f"{self.folder}/state-{state['step']:010d}.pt", buffer.getbuffer())
        for name in self._saved()[:-NUM_TO_KEEP]:
            self.step.fs.delete_file(f"{self.folder}/{name}")
        self.report(metrics)

    def is_preemption_announced(self) -> bool:
        return False
