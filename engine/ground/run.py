"""A run: a name, its resolved settings, and pointers to the steps that it is made of.

Nothing else is kept: `status`, `explain`, `report` and resume read the run's folder, from any machine, at any time.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.ground import storage
from engine.ground.lease import Lease
from engine.ground.progress import log_event
from engine.ground.steps import Output, Step, Store, differences
from engine.settings import block
from engine.settings.block import Block
from engine.settings.cluster import ClusterSettings


@dataclass(frozen=True)
class Pointer:
    """What a run knows of one of its steps."""

    label: str
    step: str
    record: dict[str, Any]
    order: float  # time of the first pointer, so that steps list in the order in which they were reached


OnGeneration: TypeAlias = Callable[[int, Any], None]
"""Called with a generation's number and the validation score (`metrics.score.Score`) of the model to use after it; None without validation images."""

POLL_SECONDS = 0.5
"""Between two looks at a step that another process makes."""


class Run:
    """The steps of one run, found or made. `label` names a step inside the run ("predict generation 1").

    `shared`: other runs may want the same steps at the same time (a search): each is made by one of them, the others wait for it.
    `on_generation`: told of each generation when it is judged, before the next one begins.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        cluster: ClusterSettings,
        shared: bool = False,
        on_generation: OnGeneration | None = None,
    ) -> None:
        self.store = store.open()
        self.name = name
        self.cluster = cluster
        self.shared = shared
        self.on_generation = on_generation

    @property
    def folder(self) -> str:
        return f"{self.store.root}/runs/{self.name}"

    @property
    def uri(self) -> str:
        return storage.join(self.store.uri, "runs", self.name)

    def save_settings(self, resolved: Block) -> None:
        storage.put(self.store.fs, f"{self.folder}/settings.yaml", block.dump(resolved).encode())

    def put(self, name: str, data: bytes) -> str:
        """Write a file of results beside the settings; returns its URI."""
        storage.put(self.store.fs, f"{self.folder}/{name}", data)
        return storage.join(self.uri, name)

    def find_or_run_step(
        self,
        label: str,
        verb: str,
        revision: int,
        settings: dict[str, Any],
        inputs: dict[str, str],
        work: Callable[[Step], Output],
    ) -> Output:
        """The output of a step: found in the store, or made by `work`. Says which, and what changed since the run last reached this label."""
        step = self.store.step(verb, revision, settings, inputs)
        self._point(label, step)
        if (output := step.output()) is not None:
            log_event(label, f"found {step.name}")
            return output
        step.begin()
        if not self.shared:
            return self._make(label, step, work)
        with Lease(step.fs, f"{step.folder}/lease") as lease:
            if (output := self._wait(label, step, lease)) is not None:
                return output
            return self._make(label, step, work)

    def _make(self, label: str, step: Step, work: Callable[[Step], Output]) -> Output:
        started = time.time()
        output = work(step)
        log_event(label, f"made {step.name} in {time.time() - started:.1f} s")
        return output

    def _wait(self, label: str, step: Step, lease: Lease) -> Output | None:
        """The output when another process makes it; None when it is this one's turn to make it."""
        told = False
        while True:
            turn = lease.mine()
            if (output := step.output()) is not None:  # after the lease: its last holder commits before it lets go
                log_event(label, f"found {step.name}")
                return output
            if turn:
                return None
            if not told:
                log_event(label, f"{step.name} is being made by another process: waiting for it")
                told = True
            time.sleep(POLL_SECONDS)

    def _point(self, label: str, step: Step) -> None:
        path = f"{self.folder}/steps/{label.replace(' ', '-')}.json"
        order = time.time()
        if storage.exists(self.store.fs, path):
            old = json.loads(storage.get(self.store.fs, path))
            order = old["order"]
            if old["step"] == step.name:
                return
            changed = differences(old["record"], step.record)
            log_event(label, f"no longer {old['step']}: {'; '.join(changed)}")
        pointer = {"label": label, "step": step.name, "record": step.record, "order": order}
        storage.put(self.store.fs, path, json.dumps(pointer, indent=1, sort_keys=True).encode())


def pointers(store: Store, run: str) -> list[Pointer]:
    """The steps of a run in the order in which they were first reached. Raises FileNotFoundError naming the runs that exist."""
    folder = f"{store.root}/runs/{run}/steps"
    found = [
        Pointer(**json.loads(storage.get(store.fs, f"{folder}/{name}"))) for name in storage.names(store.fs, folder)
    ]
    if not found:
        known = ", ".join(storage.folders(store.fs, f"{store.root}/runs")) or "none"
        raise FileNotFoundError(f"{store.uri}: no run called {run!r}; runs here: {known}")
    return sorted(found, key=lambda pointer: pointer.order)
