"""What each failure of a worker means, what is done about it, and that nothing waits for ever."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from engine.ground.failures import (
    Failure,
    FailureBudget,
    FailureCounts,
    FailureKind,
    StalledError,
    classify_ray_error,
    classify_worker_error,
    decide_retry,
    stall_reason,
    unreachable,
)
from engine.ground.watchdog import with_stall_timeout
from jobs import cli

BUDGETS = FailureBudget(crashes=2, preemptions=3)


def verdicts(kinds: list[FailureKind]) -> list[str]:
    history = FailureCounts()
    taken: list[str] = []
    for kind in kinds:
        failure = Failure(kind, "")
        history = history.after(failure)
        taken.append(decide_retry(failure, history, BUDGETS).action)
    return taken


def test_crashes_are_retried_up_to_their_budget() -> None:
    assert verdicts(["crash"] * 3) == ["retry", "retry", "give_up"]


def test_lost_machines_have_a_budget_of_their_own() -> None:
    assert verdicts(["preempted"] * 4) == ["retry", "retry", "retry", "give_up"]
    assert verdicts(["crash", "preempted", "crash", "preempted", "preempted"]) == ["retry"] * 5


@pytest.mark.parametrize("kind", ["user_error", "store"])
def test_what_only_a_person_can_mend_is_not_tried_again(kind: FailureKind) -> None:
    assert verdicts([kind]) == ["give_up"]


def test_a_budget_of_zero_survives_nothing() -> None:
    failure = Failure("crash", "")
    assert decide_retry(failure, FailureCounts().after(failure), FailureBudget(0, 0)).action == "give_up"


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.ENOSPC, "no space"), (errno.EROFS, "read-only"), (errno.EACCES, "permission"), (errno.EDQUOT, "quota")],
)
def test_a_full_or_read_only_store_is_named_with_the_remedy(code: int, says: str) -> None:
    failure = classify_worker_error(OSError(code, "words of the system", "/store/parts/x.tmp"), "/store")
    assert failure.kind == "store"
    assert "/store/parts/x.tmp" in failure.detail
    assert says in failure.detail
    assert "run the same command again" in failure.detail


def test_errors_of_a_worker_by_kind() -> None:
    assert classify_worker_error(ValueError("row 3 is damaged"), "s").kind == "user_error"
    assert classify_worker_error(OSError("connection reset"), "s").kind == "crash"
    assert classify_worker_error(RuntimeError("CUDA out of memory"), "s").kind == "crash"
    wrapped = RuntimeError("while writing")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert classify_worker_error(wrapped, "/store").kind == "store"
    assert "while writing" in classify_worker_error(wrapped, "/store").trace


def test_a_dead_process_is_a_crash_unless_its_machine_went_too() -> None:
    assert classify_ray_error(ActorDiedError(), 0, "s").kind == "crash"
    assert classify_ray_error(ActorDiedError(), 1, "s").kind == "preempted"
    task = RayTaskError("start", "traceback", ValueError("model cannot be read"))
    assert classify_ray_error(task, 0, "s").kind == "user_error"


def test_a_worker_that_does_not_answer_is_waited_for_before_it_is_judged() -> None:
    silent = RuntimeError("a block was lost")
    silent.__cause__ = ActorUnavailableError("no answer", b"0" * 16)
    assert unreachable(silent)
    assert not unreachable(ActorDiedError())


def test_an_object_store_that_denies_is_unwritable_though_it_gives_no_number() -> None:
    denied = classify_worker_error(
        OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied"), "s3://b/store"
    )
    assert denied.kind == "store"
    assert "s3://b/store: cannot be written, permission is denied" in denied.detail
    assert classify_worker_error(OSError("AWS Error SLOW_DOWN during PutObject operation"), "s").kind == "crash"


def test_stalled_only_after_the_limit() -> None:
    assert stall_reason(59, 1) is None
    assert "cluster.label.stall_minutes=1" in str(stall_reason(61, 1))


def test_the_watchdog_passes_items_and_errors_on() -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise KeyError("inside")

    items = with_stall_timeout(source(), 1)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="inside"):
        next(items)
    assert list(with_stall_timeout(iter("ab"), 1)) == ["a", "b"]


def test_the_watchdog_ends_a_source_that_hangs() -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        release.wait(60)

    began = time.monotonic()
    with pytest.raises(StalledError, match="stall_minutes"):
        list(with_stall_timeout(source(), 0.2 / 60))
    assert time.monotonic() - began < 30
    release.set()


def test_a_caller_that_has_had_enough_stops_the_source() -> None:
    drawn: list[int] = []

    def source() -> Iterator[int]:
        for number in range(10_000):
            time.sleep(0.001)
            drawn.append(number)
            yield number

    with closing(with_stall_timeout(source(), 1)) as items:
        assert next(items) == 0
    count = len(drawn)
    time.sleep(0.05)
    assert len(drawn) == count < 10_000


def test_a_full_disk_on_the_driver_is_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/store/plan.json")

    with pytest.raises(SystemExit, match="2"):
        cli.run(full)
    assert "/store/plan.json: cannot be written, no space is left on it" in capsys.readouterr().err

    def broken() -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with pytest.raises(OSError, match="dying"):
        cli.run(broken)
