"""Tasks handed out in one place: every unit once, few at a time, failures within the budgets, nothing for ever."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.ground import fanout
from engine.ground.failures import StalledError, WorkersFailedError
from engine.ground.fanout import FanOut, TaskResources, chunks, task_slots
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Store, StoreError
from engine.settings.cluster import ClusterSettings

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def fan_out(folder: Path, **cluster: object) -> FanOut:
    run = Run(Store(str(folder / "store")), "run", ClusterSettings.model_validate(cluster))
    return FanOut(run, "square", run.store.step(StepRecord("square", 1)))


def square(number: int, add: int) -> int:
    return number * number + add


def test_every_unit_is_worked_on_once_and_few_are_taken_at_a_time(tmp_path: Path) -> None:
    taken: list[int] = []
    ended: list[int] = []

    def units() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            assert len(taken) - len(ended) <= fanout.PER_WORKER * task_slots(TaskResources()) + 1
            yield number

    results = fan_out(tmp_path).map(square, units(), 1)
    while (value := next(results, None)) is not None:
        ended.append(value)
    assert sorted(ended) == [number * number + 1 for number in range(50)]


class Sum:
    def __init__(self, value: int) -> None:
        self.values = [value]

    def merge(self, other: "Sum") -> None:
        self.values += other.values


def summed(number: int) -> Sum:
    return Sum(number)


@pytest.mark.parametrize("units", [1, 8, 9, 70])
def test_states_are_merged_in_a_tree_to_one(tmp_path: Path, units: int) -> None:
    merged = fan_out(tmp_path).merge(summed, range(units))
    assert sorted(merged.values) == list(range(units))


def test_nothing_cannot_be_merged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to merge"):
        fan_out(tmp_path).merge(summed, [])


def dies(number: int, folder: str, times: int) -> int:
    """Its process ends without a word the first `times` times."""
    for attempt in range(times):
        try:
            os.close(os.open(f"{folder}/{number}-{attempt}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os._exit(1)
    return number


def test_a_unit_whose_worker_dies_is_handed_out_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = fan_out(tmp_path).map(dies, [1], str(tmp_path), fanout.TRIES)
    assert list(found) == [1]
    assert "a worker failed, 1 of 3; its work is handed out again" in capsys.readouterr().out


def test_crashes_end_the_step_when_the_budget_is_spent(tmp_path: Path) -> None:
    cluster = {"retries": {"max_failures": 1}}
    with pytest.raises(WorkersFailedError, match=r"workers failed 2 times \(cluster\.retries\.max_failures=1\)"):
        list(fan_out(tmp_path, **cluster).map(dies, [1], str(tmp_path), 100))


def refuses(number: int, error: Exception) -> int:
    if number == 3:
        raise error
    return number


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("image 3 has no label"), ValueError),
        (StoreError("part 3 was changed"), StoreError),
        (OSError(28, "No space left on device"), StoreError),
    ],
)
def test_what_a_retry_cannot_correct_ends_the_step_with_the_workers_own_error(
    tmp_path: Path, raised: Exception, expected: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(expected, match=r"3|no space is left on it"):
        list(fan_out(tmp_path).map(refuses, range(5), raised))
    assert "handed out again" not in capsys.readouterr().out


def sleeps(seconds: float) -> None:
    time.sleep(seconds)


def test_a_task_that_hangs_does_not_hang_the_step(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StalledError, match="stall_minutes"):
        list(fan_out(tmp_path, label={"stall_minutes": 0.02}).map(sleeps, [30.0]))
    assert time.monotonic() - started < 20


def test_chunks_hold_every_unit_in_order() -> None:
    assert list(chunks(list(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
    assert list(chunks([1, 2], 9)) == [[1], [2]]
