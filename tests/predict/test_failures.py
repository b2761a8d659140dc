"""What each failure of a worker means, what is done about it, and that nothing waits for ever."""

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from engine.predict.failures import (
    Budgets,
    Failure,
    History,
    Kind,
    StalledError,
    decide,
    of_ray,
    of_worker,
    stalled,
    unreachable,
)
from engine.predict.watchdog import watched
from jobs import command

BUDGETS = Budgets(crashes=2, preemptions=3)


def verdicts(kinds: list[Kind]) -> list[str]:
    history = History()
    taken: list[str] = []
    for kind in kinds:
        failure = Failure(kind, "")
        history = history.after(failure)
        taken.append(decide(failure, history, BUDGETS).action)
    return taken


def test_crashes_are_retried_up_to_their_budget() -> None:
    assert verdicts(["crash"] * 3) == ["retry", "retry", "give up"]


def test_lost_machines_have_a_budget_of_their_own() -> None:
    assert verdicts(["preempted"] * 4) == ["retry", "retry", "retry", "give up"]
    assert verdicts(["crash", "preempted", "crash", "preempted", "preempted"]) == ["retry"] * 5


@pytest.mark.parametrize("kind", ["mistake", "target"])
def test_what_only_a_person_can_mend_is_not_tried_again(kind: Kind) -> None:
    assert verdicts([kind]) == ["give up"]


def test_a_budget_of_zero_survives_nothing() -> None:
    failure = Failure("crash", "")
    assert decide(failure, History().after(failure), Budgets(0, 0)).action == "give up"


@pytest.mark.parametrize(
    ("code", "says"),
    [(errno.ENOSPC, "no space"), (errno.EROFS, "read-only"), (errno.EACCES, "permission"), (errno.EDQUOT, "quota")],
)
def test_a_full_or_read_only_store_is_named_with_the_remedy(code: int, says: str) -> None:
    failure = of_worker(OSError(code, "words of the system", "/store/parts/x.tmp"), "/store")
    assert failure.kind == "target"
    assert "/store/parts/x.tmp" in failure.detail
    assert says in failure.detail
    assert "run the same command again" in failure.detail


def test_errors_of_a_worker_by_kind() -> None:
    assert of_worker(ValueError("row 3 is damaged"), "s").kind == "mistake"
    assert of_worker(OSError("connection reset"), "s").kind == "crash"
    assert of_worker(RuntimeError("CUDA out of memory"), "s").kind == "crash"
    wrapped = RuntimeError("while writing")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert of_worker(wrapped, "/store").kind == "target"
    assert "while writing" in of_worker(wrapped, "/store").trace


def test_a_dead_process_is_a_crash_unless_its_machine_went_too() -> None:
    assert of_ray(ActorDiedError(), 0, "s").kind == "crash"
    assert of_ray(ActorDiedError(), 1, "s").kind == "preempted"
    task = RayTaskError("start", "traceback", ValueError("model cannot be read"))
    assert of_ray(task, 0, "s").kind == "mistake"


def test_a_worker_that_does_not_answer_is_waited_for_before_it_is_judged() -> None:
    silent = RuntimeError("a block was lost")
    silent.__cause__ = ActorUnavailableError("no answer", b"0" * 16)
    assert unreachable(silent)
    assert not unreachable(ActorDiedError())


def test_an_object_store_that_denies_is_unwritable_though_it_gives_no_number() -> None:
    denied = of_worker(OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied"), "s3://b/store")
    assert denied.kind == "target"
    assert "s3://b/store: cannot be written, permission is denied" in denied.detail
    assert of_worker(OSError("AWS Error SLOW_DOWN during PutObject operation"), "s").kind == "crash"


def test_stalled_only_after_the_limit() -> None:
    assert stalled(59, 1) is None
    assert "cluster.stall_minutes=1" in str(stalled(61, 1))


def test_the_watchdog_passes_items_and_errors_on() -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise KeyError("inside")

    items = watched(source(), 1)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="inside"):
        next(items)
    assert list(watched(iter("ab"), 1)) == ["a", "b"]


def test_the_watchdog_ends_a_source_that_hangs() -> None:
    release = threading.Event()

    def source() -> Iterator[int]:
        yield 1
        release.wait(60)

    began = time.monotonic()
    with pytest.raises(StalledError, match="stall_minutes"):
        list(watched(source(), 0.2 / 60))
    assert time.monotonic() - began < 30
    release.set()


def test_a_caller_that_has_had_enough_stops_the_source() -> None:
    drawn: list[int] = []

    def source() -> Iterator[int]:
        for number in range(10_000):
            time.sleep(0.001)
            drawn.append(number)
            yield number

    with closing(watched(source(), 1)) as items:
        assert next(items) == 0
    count = len(drawn)
    time.sleep(0.05)
    assert len(drawn) == count < 10_000


def test_a_full_disk_on_the_driver_is_one_paragraph(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/store/plan.json")

    with pytest.raises(SystemExit, match="2"):
        command.run(full)
    assert "/store/plan.json: cannot be written, no space is left on it" in capsys.readouterr().err

    def broken() -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with pytest.raises(OSError, match="dying"):
        command.run(broken)
