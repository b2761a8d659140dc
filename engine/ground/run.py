"""A run: a name, its resolved settings, and pointers to its steps.

Nothing else is stored: `status`, `explain`, `report` and resume read the folder of the run, from any machine, at any time.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from engine.ground import storage
from engine.ground.lease import Lease
from engine.ground.progress import log_event
from engine.ground.record import StepRecord, differences, json_text
from engine.ground.steps import Output, Step, Store
from engine.settings import block
from engine.settings.block import Block
from engine.settings.cluster import ClusterSettings
from engine.settings.credentials import hide_credentials
from engine.settings.names import check_file_name


@dataclass(frozen=True)
class Pointer:
    """A reference from a run to one of its steps. `title` (stored as `label`): names the step inside the run."""

    title: str
    step: str
    record: dict[str, Any]
    order: float  # time of the first pointer: steps are listed in the order in which they were first reached


OnGeneration: TypeAlias = Callable[[int, Any], None]
"""Called with a generation's number and the validation score (`metrics.score.Score`) of the model to use after it; None without validation images."""

POLL_SECONDS = 0.5
"""Seconds between two checks of a step that another process computes."""


class Run:
    """The steps of one run, computed or reused. The title names a step inside the run ("predict generation 1").

    Other runs, or the same one started twice, may need a step at the same time: it is computed by one of them while the others wait.
    `on_generation`: called after the decision on each generation, before the next one starts.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        cluster: ClusterSettings,
        on_generation: OnGeneration | None = None,
    ) -> None:
        self.store = store.open()
        self.name = check_file_name("run", name)
        self.cluster = cluster
        self.on_generation = on_generation

    @property
    def folder(self) -> str:
        return f"{self.store.root}/runs/{self.name}"

    @property
    def uri(self) -> str:
        return storage.join(self.store.uri, "runs", self.name)

    def save_settings(self, resolved: Block) -> None:
        storage.put(self.store.fs, f"{self.folder}/settings.yaml", hide_credentials(block.dump(resolved)).encode())

    def put(self, name: str, data: bytes) -> str:
        """Write a file of results into the folder of the run; returns its URI."""
        storage.put(self.store.fs, f"{self.folder}/{name}", data)
        return storage.join(self.uri, name)

    def find_or_run_step(self, title: str, record: StepRecord, work: Callable[[Step], Output]) -> Output:
        """The output of a step: reused from the store, or computed by `work`. Logs which, and what changed since the run last reached this title."""
        step = self.store.step(record)
        self._point(title, step)
        if (output := step.output()) is not None:
            log_event(title, f"reused ({step.name})")
            return output
        step.begin()
        with Lease(step.fs, f"{step.folder}/lease") as lease:
            if (output := self._wait(title, step, lease)) is not None:
                return output
            return self._compute(title, step, work)

    def _compute(self, title: str, step: Step, work: Callable[[Step], Output]) -> Output:
        started = time.time()
        output = work(step)
        log_event(title, f"done in {time.time() - started:.1f} s ({step.name})")
        return output

    def _wait(self, title: str, step: Step, lease: Lease) -> Output | None:
        """The output once another process has computed it; None once this process holds the lease."""
        waiting = False
        while True:
            lease.renew()
            if (output := step.output()) is not None:  # read after the lease: a holder commits before it releases it
                log_event(title, f"reused ({step.name})")
                return output
            if lease.is_held():
                return None
            if not waiting:
                log_event(title, f"another process computes {step.name}: waiting for it")
                waiting = True
            time.sleep(POLL_SECONDS)

    def _point(self, title: str, step: Step) -> None:
        check_file_name("step title", title, blanks=True)
        path = f"{self.folder}/steps/{title.replace(' ', '-')}.json"
        order = time.time()
        if storage.exists(self.store.fs, path):
            old = json.loads(storage.get(self.store.fs, path))
            order = old["order"]
            if old["step"] == step.name:
                return
            changed = differences(old["record"], step.record)
            log_event(title, f"changed {'; '.join(changed)} (was {old['step']})")
        pointer = {"label": title, "step": step.name, "record": step.record, "order": order}
        storage.put(self.store.fs, path, json_text(pointer, indent=1, sort_keys=True).encode())


def pointers(store: Store, run: str) -> list[Pointer]:
    """The steps of a run in the order in which they were first reached. Raises FileNotFoundError listing the existing runs."""
    known = storage.folders(store.fs, f"{store.root}/runs")
    if run not in known:
        check_file_name("run", run)
        raise FileNotFoundError(f"{store.uri}: no run named {run!r}. Existing runs: {', '.join(known) or 'none'}.")
    folder = f"{store.root}/runs/{run}/steps"
    stored = [json.loads(storage.get(store.fs, f"{folder}/{name}")) for name in storage.names(store.fs, folder)]
    found = [Pointer(one["label"], one["step"], one["record"], one["order"]) for one in stored]
    if not found:
        raise FileNotFoundError(f"{store.uri}: the run {run!r} has no steps yet. Existing runs: {', '.join(known)}.")
    return sorted(found, key=lambda pointer: pointer.order)
