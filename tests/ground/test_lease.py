"""Single flight: of several that want a step one makes it; a killed holder is passed over; on disks and object stores."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest

from engine.ground import storage
from engine.ground.lease import Claim, Lease, holder, is_gone, machine, place
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store
from engine.settings.cluster import ClusterSettings


def test_the_earliest_live_claim_holds_and_equal_times_are_ordered_by_name() -> None:
    dead, late, early, tied = (Claim(*one) for one in (("d", 1, 50), ("a", 9, 99), ("c", 5, 95), ("b", 5, 99)))
    assert holder([late, dead, early, tied], now=100, expiry=10) == tied
    assert holder([late, dead, early], now=100, expiry=10) == early
    assert holder([dead], now=100, expiry=10) is None
    assert holder([dead], now=100, expiry=50) == dead


def one_at_a_time(uri: str, processes: int) -> list[tuple[str, int]]:
    """Threads that all need the same step; returns (event, thread) in order."""
    store = Store(uri).open()
    events: list[tuple[str, int]] = []

    def want(number: int) -> None:
        def work(step: Step) -> Output:
            events.append(("begins", number))
            time.sleep(0.3)
            output = step.commit([step.put_part(0, pa.table({"x": [7]}))], {}, time.time())
            events.append(("ends", number))
            return output

        Run(Store(uri), f"run{number}", ClusterSettings()).find_or_run_step("fit", StepRecord("fit", 1), work)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [step] = store.steps()
    assert storage.names(store.fs, f"{store.root}/steps/{step}/lease") == [], "a file of the lease remained"
    return events


def test_a_step_that_many_processes_need_is_computed_once(tmp_path: Path) -> None:
    events = one_at_a_time(str(tmp_path), 8)
    assert [what for what, _ in events] == ["begins", "ends"]


def test_a_step_is_computed_once_on_an_object_store(s3: str) -> None:
    events = one_at_a_time(s3.format("lease"), 3)
    assert [what for what, _ in events] == ["begins", "ends"]


def test_failed_work_is_retried_by_the_next_process(tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path)), "r", ClusterSettings())

    def fails(_: Step) -> Output:
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        run.find_or_run_step("fit", StepRecord("fit", 1), fails)
    output = run.find_or_run_step("fit", StepRecord("fit", 1), lambda step: step.commit([], {}, 0.0))
    assert output.step.startswith("fit-")


def renewed(lease: Lease) -> bool:
    lease.renew()
    return lease.is_held()


HOLD = """
import sys, time
from engine.ground import lease, storage
from engine.ground.lease import Lease
lease.machine = lambda: sys.argv[2]
fs, folder = storage.resolve(sys.argv[1])
with Lease(fs, folder, expiry=2.0) as lease:
    lease.renew()
    print(lease.is_held(), flush=True)
    time.sleep(600)
"""


def test_a_killed_holder_is_skipped_when_its_heartbeats_are_old(tmp_path: Path) -> None:
    folder = str(tmp_path / "lease")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder, "another machine"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "True"
        fs, path = storage.resolve(folder)
        with Lease(fs, path, expiry=2.0) as lease:
            time.sleep(2.5)
            assert not renewed(lease), "the holder lives"
            os.kill(process.pid, signal.SIGKILL)
            killed = time.monotonic()
            while not renewed(lease):
                assert time.monotonic() - killed < 20
                time.sleep(0.05)
            assert time.monotonic() - killed > 0.5, "skipped although its last heartbeat was recent"
            time.sleep(2.5)
            lease.renew()
            assert {name.split(".")[0] for name in storage.names(fs, path)} == {lease.name}, "the dead are removed"
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_of_this_machine_is_skipped_at_once(tmp_path: Path) -> None:
    """The same command again does not wait for the heartbeats of the one that was killed to grow old."""
    folder = str(tmp_path / "lease")
    command = [sys.executable, "-c", HOLD, folder, machine()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "True"
        fs, path = storage.resolve(folder)
        with Lease(fs, path, expiry=600) as lease:
            assert not renewed(lease), "the holder lives"
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert renewed(lease)


def test_a_place_tells_machines_and_reused_process_ids_apart() -> None:
    assert not is_gone(place())
    where, number, began = place().split("\n")
    assert not is_gone(f"elsewhere\n{number}\n{began}")
    assert not is_gone(f"elsewhere\n{2**22 + 1}\n{began}"), "nothing is known of another machine"
    assert is_gone(f"{where}\n{2**22 + 1}\n{began}")
    assert is_gone(f"{where}\n{number}\n{float(began) - 1000}"), "the id was used again"
    assert not is_gone(".")


def test_a_process_presumed_dead_claims_again(tmp_path: Path) -> None:
    fs, folder = storage.resolve(str(tmp_path))
    with Lease(fs, folder) as first:
        assert renewed(first)
        for name in storage.names(fs, folder):
            fs.delete_file(f"{folder}/{name}")
        with Lease(fs, folder) as second:
            assert renewed(second)
            assert not renewed(first)
            assert not renewed(first)
        assert renewed(first)
