"""Classification of worker failures and the decision to retry: values and pure functions, on which the caller acts.

A worker returns its Python errors as values, not as exceptions through Ray, so that their cause is not lost. Ray raises the death of a process or a
node. Ray itself replaces a worker that dies and hands its shard out once more, so a failure that arrives here has happened twice.
"""

import errno
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from ray.exceptions import ActorUnavailableError, NodeDiedError, RayActorError, RayTaskError

FailureKind: TypeAlias = Literal["user_error", "store", "crash", "preempted"]
"""user_error: only the user can correct it. store: the store cannot be written. crash: a bug, lack of memory, a network error. preempted: a node was
lost, which is no fault of the work."""

Action: TypeAlias = Literal["retry", "give_up"]

UNWRITABLE = {
    errno.ENOSPC: "no space is left on it",
    errno.EDQUOT: "its quota is used up",
    errno.EROFS: "it is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
}


class WorkersFailedError(RuntimeError):
    """Workers crashed more often than `cluster.retries.max_failures` allows, or nodes were lost more often than
    `cluster.retries.max_preemptions` does."""


class StalledError(RuntimeError):
    """No shard was finished for `cluster.label.stall_minutes`."""


@dataclass(frozen=True)
class Failure:
    """One failure; `detail` is the message, `trace` where it came from."""

    kind: FailureKind
    detail: str
    trace: str = ""

    def record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FailureBudget:
    """How many failures of a kind a step survives."""

    crashes: int
    preemptions: int


@dataclass(frozen=True)
class FailureCounts:
    """Failures of a step so far."""

    crashes: int = 0
    preemptions: int = 0

    def after(self, failure: Failure) -> "FailureCounts":
        """The history with `failure` counted."""
        if failure.kind == "preempted":
            return replace(self, preemptions=self.preemptions + 1)
        return replace(self, crashes=self.crashes + 1)


@dataclass(frozen=True)
class FailureDecision:
    """What to do and why."""

    action: Action
    reason: str


def decide_retry(failure: Failure, history: FailureCounts, budgets: FailureBudget) -> FailureDecision:
    """Go on or give up after `failure`, which `history` counts already."""
    if failure.kind == "user_error":
        return FailureDecision("give_up", "a retry cannot correct it")
    if failure.kind == "store":
        return FailureDecision("give_up", "the store cannot be written")
    if failure.kind == "preempted":
        if history.preemptions > budgets.preemptions:
            return FailureDecision(
                "give_up",
                f"machines were lost {history.preemptions} times (cluster.retries.max_preemptions={budgets.preemptions})",
            )
        return FailureDecision("retry", f"a machine was lost, {history.preemptions} of {budgets.preemptions}")
    if history.crashes > budgets.crashes:
        return FailureDecision(
            "give_up", f"workers failed {history.crashes} times (cluster.retries.max_failures={budgets.crashes})"
        )
    return FailureDecision("retry", f"a worker failed, {history.crashes} of {budgets.crashes}")


def classify_worker_error(error: BaseException, store: str) -> Failure:
    """The failure behind a Python error inside a worker; `store`: the step's URI, for the message."""
    trace = "".join(traceback.format_exception(error))
    for one in causes(error):
        if isinstance(one, OSError) and (why := unwritable(one)):
            place = one.filename or store
            return Failure(
                "store",
                f"{place}: cannot be written, {why}. Correct this and run the same command again: "
                "what was finished is kept",
                trace,
            )
        if isinstance(one, ValueError | FileNotFoundError):
            return Failure("user_error", str(one), trace)
    return Failure("crash", f"{type(error).__name__}: {error}", trace)


def unwritable(error: OSError) -> str | None:
    """Why the store takes no more, if that is what `error` says. Object stores answer in words, without an error number."""
    if error.errno in UNWRITABLE:
        return UNWRITABLE[error.errno]
    return f"permission is denied ({error})" if "ACCESS_DENIED" in str(error) else None


def classify_ray_error(error: BaseException, machines_lost: int, store: str) -> Failure:
    """The failure behind what Ray raised; `machines_lost`: nodes that were alive when the work began and no longer are."""
    for one in causes(error):
        if isinstance(one, NodeDiedError) or (isinstance(one, RayActorError) and one.preempted):
            return Failure("preempted", str(one))
    if machines_lost:
        return Failure("preempted", f"{machines_lost} machines are gone: {error}")
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return classify_worker_error(error.cause, store)
    return Failure("crash", f"{type(error).__name__}: {error}")


def unreachable(error: BaseException) -> bool:
    """Whether a worker stopped answering and nobody knows yet whether its process or its machine is gone."""
    return any(isinstance(one, ActorUnavailableError) for one in causes(error))


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was raised from, outermost first."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        inner = getattr(one, "cause", None)
        one = inner if isinstance(inner, BaseException) else one.__cause__


def stall_reason(quiet_seconds: float, stall_minutes: float) -> str | None:
    """Why the work counts as stalled after so many seconds without a finished shard; None while it does not."""
    if quiet_seconds < 60 * stall_minutes:
        return None
    return (
        f"no shard was finished for {quiet_seconds / 60:.1f} minutes (cluster.label.stall_minutes={stall_minutes:g}): a worker hangs, or the cluster "
        "has no room for one (see `ray status`). What was finished is kept; run the same command again, with a larger cluster.label.stall_minutes "
        "or smaller shards (rows_per_shard) if a shard takes that long"
    )
