"""A run: a name, its resolved settings, and pointers to the steps that it is made of.

Nothing else is kept: `status`, `explain`, `report` and resume read the run's folder, from any machine, at any time.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine import config, storage
from engine.config import Block
from engine.progress import say
from engine.settings import ClusterSettings
from engine.steps import Output, Step, Store, differences


@dataclass(frozen=True)
class Pointer:
    """What a run knows of one of its steps."""

    label: str
    step: str
    record: dict[str, Any]
    order: float  # time of the first pointer, so that steps list in the order in which they were reached


class Run:
    """The steps of one run, found or made. `label` names a step inside the run ("predict generation 1")."""

    def __init__(self, store: Store, name: str, cluster: ClusterSettings) -> None:
        self.store = store.open()
        self.name = name
        self.cluster = cluster

    @property
    def folder(self) -> str:
        return f"{self.store.root}/runs/{self.name}"

    @property
    def uri(self) -> str:
        return storage.join(self.store.uri, "runs", self.name)

    def save_settings(self, resolved: Block) -> None:
        storage.put(self.store.fs, f"{self.folder}/settings.yaml", config.dump(resolved).encode())

    def put(self, name: str, data: bytes) -> str:
        """Write a file of results beside the settings; returns its URI."""
        storage.put(self.store.fs, f"{self.folder}/{name}", data)
        return storage.join(self.uri, name)

    def step(
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
            say(label, f"found {step.name}")
            return output
        step.begin()
        started = time.time()
        output = work(step)
        say(label, f"made {step.name} in {time.time() - started:.1f} s")
        return output

    def _point(self, label: str, step: Step) -> None:
        path = f"{self.folder}/steps/{label.replace(' ', '-')}.json"
        order = time.time()
        if storage.exists(self.store.fs, path):
            old = json.loads(storage.get(self.store.fs, path))
            order = old["order"]
            if old["step"] == step.name:
                return
            changed = differences(old["record"], step.record)
            say(label, f"no longer {old['step']}: {'; '.join(changed)}")
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
