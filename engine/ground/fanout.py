"""Tasks on Ray: the one place where they are handed out and awaited.

A bounded number is in flight, so that the driver holds neither the work nor its results; what fails is handed out again within the budgets of the
step; nothing waits for ever. What a task returns should be a few numbers: parts are written where they are made.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import ray
from ray.exceptions import RayError

from engine.ground.failure_handler import FailureHandler
from engine.ground.failures import StalledError, stall_reason
from engine.ground.resources import ANYWHERE
from engine.ground.run import Run
from engine.ground.steps import Step

PER_WORKER = 2
"""Tasks in flight per task that the cluster can run at once: one runs, one waits on its node."""
MOST = 4096
"""Tasks in flight in all: waiting for them takes the driver time in proportion."""
LOOK_AGAIN = 10.0
"""Seconds after which the size of the cluster is asked for again."""
FAN_IN = 8
"""States that one task merges."""
TRIES = 2
"""How often Ray itself runs a task whose worker dies, before the driver hears of it."""

T = TypeVar("T")
U = TypeVar("U")
END = object()


class Mergeable(Protocol):
    """A state that is filled on several workers."""

    def merge(self, other: Self) -> None:
        """Take in what `other` has seen."""


M = TypeVar("M", bound=Mergeable)


@dataclass(frozen=True)
class TaskResources:
    """What Ray reserves for a task."""

    cpus: float = 1.0
    gpus: float = 0.0


class FanOut:
    """Runs the tasks of one step. Raises, from every method, as `FailureHandler.handle` does, and StalledError when no task ends within
    `cluster.label.stall_minutes`.
    """

    def __init__(
        self,
        run: Run,
        title: str,
        step: Step,
        resources: TaskResources = TaskResources(),
        failures: FailureHandler | None = None,
    ) -> None:
        self.title, self.step = title, step
        self.failures = failures or FailureHandler(title, step.uri, run.cluster.retries)
        self.resources = resources
        self.stall_minutes = run.cluster.label.stall_minutes
        self._slots, self._asked = 0, 0.0

    def map(self, function: Callable[..., T], units: Iterable[U], *shared: object) -> Iterator[T]:
        """`function(unit, *shared)` of every unit, as the tasks end. `shared` is put into the object store once."""
        for _, value in self._ended(function, units, shared, keep=False):
            yield value

    def merge(self, function: Callable[..., M], units: Iterable[U], *shared: object) -> M:
        """The states `function(unit, *shared)` of every unit, merged on the cluster in a tree; the last one alone reaches the driver.

        Raises ValueError when there is no unit.
        """
        return ray.get(self.merged(function, units, *shared))

    def merged(self, function: Callable[..., M], units: Iterable[U], *shared: object) -> ray.ObjectRef:
        """The reference of what `merge` returns, for a task that goes on with it."""
        states = [ref for ref, _ in self._ended(function, units, shared, keep=True)]
        if not states:
            raise ValueError("nothing to merge: no unit of work was given")
        while len(states) > 1:
            groups = [states[i : i + FAN_IN] for i in range(0, len(states), FAN_IN)]
            states = [ref for ref, _ in self._ended(merge_states, groups, (), keep=True)]
        return states[0]

    def _ended(
        self, function: Callable[..., Any], units: Iterable[Any], shared: Iterable[object], keep: bool
    ) -> Iterator[tuple[ray.ObjectRef, Any]]:
        """The reference of each task's result and its value as tasks end; with `keep` the result stays on the cluster and the value is None."""
        self.failures.watch()
        held = [ray.put(value) for value in shared]
        task = ray.remote(
            scheduling_strategy=ANYWHERE,
            num_cpus=self.resources.cpus,
            num_gpus=self.resources.gpus,
            max_retries=TRIES - 1,
            num_returns=2 if keep else 1,
        )(with_receipt if keep else function)
        first = (function,) if keep else ()
        waiting, failed = iter(units), deque[Any]()
        flying: dict[ray.ObjectRef, tuple[ray.ObjectRef, Any]] = {}  # by the reference whose value is fetched
        try:
            while True:
                while len(flying) < self._room():
                    unit = failed.popleft() if failed else next(waiting, END)
                    if unit is END:
                        break
                    refs = task.remote(*first, unit, *held)
                    result, receipt = refs if keep else (refs, refs)
                    flying[receipt] = result, unit
                if not flying:
                    return
                for receipt in self._ready(list(flying)):
                    result, unit = flying.pop(receipt)
                    try:
                        value = ray.get(receipt)
                    except RayError as error:
                        self.failures.handle_error(error)
                        failed.append(unit)
                        continue
                    yield result, value
        finally:
            for receipt in flying:
                ray.cancel(receipt)

    def _ready(self, refs: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
        """Those that have ended, at least one."""
        ready, rest = ray.wait(refs, num_returns=1, timeout=60 * self.stall_minutes)
        if not ready:
            raise StalledError(stall_reason(60 * self.stall_minutes, self.stall_minutes))
        if rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return ready

    def _room(self) -> int:
        """Tasks that may be in flight; machines come and go."""
        if time.monotonic() - self._asked > LOOK_AGAIN or not self._slots:
            self._asked = time.monotonic()
            self._slots = task_slots(self.resources)
        return min(MOST, PER_WORKER * self._slots)


def task_slots(resources: TaskResources) -> int:
    """Tasks that the connected cluster can run at once, at least 1."""
    here = ray.cluster_resources()
    pairs = ((here.get("CPU", 1.0), resources.cpus), (here.get("GPU", 0.0), resources.gpus))
    return max(1, min(int(there / each) for there, each in pairs if each > 0))


def chunks(units: list[U], tasks: int) -> Iterator[list[U]]:
    """`units` in at most `tasks` consecutive groups of about the same size, none of them empty."""
    size = -(-len(units) // max(1, tasks)) or 1
    yield from (units[i : i + size] for i in range(0, len(units), size))


def with_receipt(function: Callable[..., T], unit: object, *shared: object) -> tuple[T, None]:
    """The result, which stays where it is, and a value that tells the driver of its end."""
    return function(unit, *shared), None


def merge_states(states: list[ray.ObjectRef]) -> Mergeable:
    """One state of several."""
    first, *others = states
    merged = copy.deepcopy(ray.get(first))  # what the object store holds cannot be written to
    for other in others:
        merged.merge(ray.get(other))
    return merged
