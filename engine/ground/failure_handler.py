"""The one place that acts on what goes wrong in the workers of a step."""

import time

import ray
from ray.exceptions import RayError, RayTaskError

from engine.ground.failures import (
    Failure,
    FailureBudget,
    FailureCounts,
    WorkersFailedError,
    classify_ray_error,
    decide_retry,
    unreachable,
)
from engine.ground.progress import log_event
from engine.ground.steps import StoreError
from engine.settings.cluster import RetrySettings

NOTICED_WITHIN = 30.0
"""Seconds after which Ray knows of a machine that is lost (five health checks missed)."""


class FailureHandler:
    """Counts the failures of a step against its budgets. `uri`: the step's, for messages about a store that cannot be written."""

    def __init__(self, title: str, uri: str, retries: RetrySettings) -> None:
        self.title, self.uri = title, uri
        self.budgets = FailureBudget(retries.max_failures, retries.max_preemptions)
        self.counts = FailureCounts()
        self.watch()

    def watch(self) -> None:
        """Remember which nodes are alive: work begins now, and those that left before are no failure of it."""
        self._alive = alive_nodes()

    def handle(self, failure: Failure, error: BaseException | None = None) -> None:
        """Count a failure and log it; return where the work is to be handed out again, else raise.

        Raises WorkersFailedError when a budget is spent, StoreError when the store cannot be written, and for a user error the worker's own
        exception, or ValueError where only its text is known.
        """
        self.counts = self.counts.after(failure)
        decision = decide_retry(failure, self.counts, self.budgets)
        if decision.action == "retry":
            first_line = failure.detail.splitlines()[0][:300]
            log_event(self.title, f"{decision.reason}; its work is handed out again: {first_line}")
            return
        if failure.kind == "user_error":
            cause = error.cause if isinstance(error, RayTaskError) else None
            raise (cause if isinstance(cause, ValueError) else ValueError(failure.detail)) from error
        if failure.kind == "store":
            raise StoreError(failure.detail) from error
        raise WorkersFailedError(
            f"{decision.reason}; what was finished is kept. The last failure:\n{failure.trace or failure.detail}"
        ) from error

    def handle_error(self, error: RayError) -> None:
        """`handle` what Ray raised: a worker's exception, or the death of a process or a node."""
        self.handle(classify_ray_error(error, self._lost_nodes(error), self.uri), error)

    def _lost_nodes(self, error: RayError) -> int:
        """How many nodes are gone since the work began. A worker that does not answer may be the first sign: Ray is given time to notice."""
        may_be_lost = unreachable(error) and len(self._alive) > 1  # the only node is the driver's own
        deadline = time.monotonic() + (NOTICED_WITHIN if may_be_lost else 0.0)
        while not (gone := self._alive - alive_nodes()) and time.monotonic() < deadline:
            time.sleep(1.0)
        self.watch()
        return len(gone)


def alive_nodes() -> set[str]:
    """Ids of the nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
