"""The training loop: plain torch, written once for every objective.

The trajectory is a function of the settings, the number of workers and the device: batches and random numbers come from
the step number, so a run that resumes at a checkpoint goes the way it would have gone.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from engine.fit.batch import Batch
from engine.fit.objective import Objective
from engine.fit.streams import Stream
from engine.fit.workers import average_over_workers
from engine.settings.fit import FitSettings

AHEAD = 2
"""Batches prepared while the current one is learnt from."""


class DivergedError(ValueError):
    """The loss is not finite: correct the settings or the targets."""


@dataclass(frozen=True)
class Hooks:
    """What the loop calls, on all ranks alike."""

    on_checkpoint: Callable[[int, dict[str, Any]], None]
    """With the step and the objective's state: every `checkpoint_every` steps and at the end, also when there was nothing left to do."""
    on_log: Callable[[dict[str, Any]], None]
    """With metrics, every `log_every` steps and before each checkpoint: `step`, `loss` and what the objective returns, averaged over steps and
    workers since the last log, with `images_per_second` (all workers), `seconds_per_step` and `waiting` (share of the time spent waiting)."""
    should_save: Callable[[], bool] = lambda: False
    """Asked every `log_every` steps, all ranks answer alike: a checkpoint out of turn."""


def train(
    objective: Objective, streams: Mapping[str, Stream], settings: FitSettings, hooks: Hooks, start_step: int = 0
) -> dict[str, Any]:
    """Train from `start_step` (steps already done) to `settings.steps`; returns the last metrics.

    Raises DivergedError when the loss is not finite, before anything of it is checkpointed.
    """
    device = objective.context.device
    torch.backends.cudnn.deterministic = True  # some of its faster kernels add in no fixed order
    meter = Meter(device, sum(settings.batch.values()), start_step)
    done, last = start_step, {"step": start_step}
    with Prefetcher(streams, start_step, settings.steps, pin=device.type == "cuda") as batches:
        while done < settings.steps:
            batch, waited = batches.next()
            torch.manual_seed(step_seed(settings.seed, objective.context.rank, done))
            meter.add(objective.step(batch, done), waited)
            done += 1
            save = done == settings.steps or done % settings.checkpoint_every == 0
            if save or done % settings.log_every == 0:
                last = meter.read(done)
                hooks.on_log(last)
                save = save or hooks.should_save()
            if save:
                hooks.on_checkpoint(done, objective.state_dict())
                meter.restart()  # saving is not training
    if start_step >= settings.steps:
        hooks.on_checkpoint(done, objective.state_dict())
    return last


def step_seed(seed: int, rank: int, step: int) -> int:
    """Seed of all that a step draws from torch's generators (dropout, stochastic depth), different on every rank."""
    return int(np.random.SeedSequence([seed % 2**64, rank, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Prefetcher:
    """Prepares the batches of the next steps in background threads, one a stream, so that each stream is asked step by
    step.
    """

    def __init__(self, streams: Mapping[str, Stream], start: int, stop: int, pin: bool) -> None:
        self._streams, self._pin = streams, pin
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=f"batch-{name}") for name in streams}
        self._coming: deque[dict[str, Future[Batch]]] = deque()
        self._next, self._stop = start, stop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads.values():
            thread.shutdown(cancel_futures=True)

    def next(self) -> tuple[dict[str, Batch], float]:
        """The next step's batches, and the seconds spent waiting for them."""
        while len(self._coming) <= AHEAD and self._next < self._stop:
            self._coming.append(
                {name: thread.submit(self._prepare, name, self._next) for name, thread in self._threads.items()}
            )
            self._next += 1
        started = time.perf_counter()
        batches = {name: future.result() for name, future in self._coming.popleft().items()}
        return batches, time.perf_counter() - started

    def _prepare(self, name: str, step: int) -> Batch:
        batch = self._streams[name].batch(step)
        return batch.pin() if self._pin else batch


class Meter:
    """Averages what the steps return without waiting for the device; only `read` brings numbers to the host and
    together over workers.
    """

    def __init__(self, device: torch.device, images_a_step: int, start: int) -> None:
        self._device, self._images = device, images_a_step
        self._since, self._first_bad = start, torch.full((), torch.inf, device=device)
        self._sums: dict[str, Tensor] = {}
        self._values: dict[str, float] = {}
        self._count = 0
        self._seconds, self._waited, self._timed, self._started = 0.0, 0.0, 0, time.perf_counter()

    def add(self, metrics: Mapping[str, Tensor | float], waited: float) -> None:
        """Take in one step. A loss that is not finite is noted on the device, with its step."""
        for name, value in metrics.items():
            if isinstance(value, Tensor):
                self._sums[name] = self._sums[name] + value if name in self._sums else value.detach().clone()
            else:
                self._values[name] = value
        loss = torch.as_tensor(metrics["loss"], device=self._device)
        bad = torch.where(loss.isfinite(), torch.inf, float(self._since + self._count))
        self._first_bad = torch.minimum(self._first_bad, bad)
        self._count += 1
        self._timed += 1
        self._waited += waited

    def read(self, step: int) -> dict[str, Any]:
        """The averages since the last call; `step` steps are done. Raises DivergedError."""
        names = sorted(self._sums)
        means = (
            torch.stack([self._sums[name].float() for name in names] + [torch.zeros((), device=self._device)])
            / self._count
        )
        means = average_over_workers(means)  # every rank has the same number of rows
        metrics = {**self._values, **dict(zip(names, means.tolist()[:-1], strict=True))}
        if not np.isfinite(metrics["loss"]):
            raise DivergedError(self._diagnosis(step))
        seconds = self._seconds + time.perf_counter() - self._started
        each = seconds / max(1, self._timed)
        timing = {
            "seconds_per_step": each,
            "images_per_second": self._images / each,
            "waiting": min(1.0, self._waited / seconds),
        }
        self._sums, self._values, self._count, self._since = {}, {}, 0, step
        self._timed, self._waited = 0, 0.0
        self.restart()
        return {"step": step, **metrics, **timing}

    def restart(self) -> None:
        """Time from now on."""
        self._seconds, self._started = 0.0, time.perf_counter()

    def _diagnosis(self, step: int) -> str:
        first = float(self._first_bad)
        where = (
            f"at step {int(first)}"
            if np.isfinite(first)
            else f"on another worker between steps {self._since} and {step}"
        )
        return (
            f"the loss is not finite {where}. Usual causes: too high a learning rate (lower fit.lr, raise "
            "fit.warmup_steps), no bound on gradients (set fit.clip_grad: 1), or targets that are not probabilities. "
            "The last checkpoint is from before"
        )
