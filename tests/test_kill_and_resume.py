"""The driver is killed with SIGKILL in fit, in predict and between steps, or a training worker under a living driver; the same command goes on,
and what comes out is what an undisturbed run gives, row for row."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from engine.ground.run import Pointer, pointers
from engine.ground.steps import Store, read_output, read_tables
from tests import driver
from tests.small_run import small_tree, write_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]

PATIENCE = 400.0
"""Seconds for one attempt on a machine that does other things too; a quiet one needs some 40."""


@contextmanager
def started(config: Path) -> Iterator[subprocess.Popen[str]]:
    """The job as a process of its own."""
    command = [sys.executable, "-m", "jobs.self_train", str(config)]
    with driver.started(command, config.with_suffix(".log")) as process:
        yield process


def finish(config: Path, meanwhile: Callable[[subprocess.Popen[str]], None] = lambda _: None) -> str:
    """Run the job to its end, with `meanwhile` called once it has started; returns what this attempt printed."""
    log = config.with_suffix(".log")
    before = log.stat().st_size if log.exists() else 0
    with started(config) as process:
        meanwhile(process)
        assert process.wait(timeout=PATIENCE) == 0, log.read_text()[-4000:]
    return log.read_bytes()[before:].decode()


def kill_when(config: Path, happened: Callable[[], bool]) -> None:
    """Start the job and kill its driver the moment `happened` is true."""
    with started(config) as process:
        wait_until(happened, process, config)
        os.kill(process.pid, signal.SIGKILL)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str], config: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, (
            f"ended before it could be killed:\n{config.with_suffix('.log').read_text()[-4000:]}"
        )
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.002)


def steps(store: str) -> dict[str, Pointer]:
    return {pointer.title: pointer for pointer in pointers(Store(store), "run")}


def rows(store: str, step: str) -> list[dict[str, object]]:
    output = read_output(Store(store), step)
    assert output is not None
    return [row for _, table in read_tables(output, Store(store).fs) for row in table.to_pylist()]


def test_killed_in_fit_in_predict_and_between_steps(finished: str, digits: Path, tmp_path: Path) -> None:
    whole, broken = finished, str(tmp_path / "broken")
    disturbed = write_config(tmp_path / "broken.yaml", small_tree(digits, broken))

    folder = Path(broken) / "steps"
    kill_when(disturbed, lambda: any(folder.glob("fit-*/train/state-*.pt")))
    assert not any(folder.glob("fit-*/step.json")), "the fit was already over"

    def predicted_parts() -> set[str]:
        """Parts of the pool's predictions; those of the validation images come before them."""
        pointer = steps(broken).get("generation 1 predict")
        return {path.name for path in (folder / pointer.step / "parts").glob("*.parquet")} if pointer else set()

    kill_when(disturbed, lambda: any(predicted_parts()))
    done_before = predicted_parts()
    assert not (folder / steps(broken)["generation 1 predict"].step / "step.json").exists(), "predict was already over"
    kill_when(disturbed, lambda: any(folder.glob("select-*/step.json")))

    said = finish(disturbed)

    assert "reused (predict-" in said
    predicted = steps(broken)["generation 1 predict"].step
    parts = {path.name for path in (folder / predicted / "parts").glob("*.parquet")}
    assert done_before <= parts, "finished parts were thrown away"
    for label in (
        "teacher fit",
        "generation 1 predict",
        "generation 1 select",
        "generation 1 gather",
        "generation 1 fit",
        "generation 1 test",
    ):
        assert steps(broken)[label].step == steps(whole)[label].step, f"{label} went another way"
    for label in ("generation 1 predict", "generation 1 select", "generation 1 gather"):
        assert rows(broken, steps(broken)[label].step) == rows(whole, steps(whole)[label].step)

    again = finish(disturbed)
    assert " done in " not in again, "a finished run computed something again"


@pytest.mark.slow
def test_a_training_worker_killed_under_a_living_driver_changes_nothing(
    finished: str, digits: Path, tmp_path: Path
) -> None:
    broken = str(tmp_path / "broken")
    folder = Path(broken) / "steps"

    def kill_the_training_worker(process: subprocess.Popen[str]) -> None:
        wait_until(lambda: any(folder.glob("fit-*/train/checkpoint_*/state.pt")), process, on_workers)
        found = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "RayTrainWorker" in " ".join(child.cmdline())
        ]
        assert found, "no training worker found to kill"
        found[0].kill()

    workers = {"train": {"cpus": 1, "in_driver": False}}
    on_workers = write_config(tmp_path / "workers.yaml", small_tree(digits, broken, cluster=workers))
    said = finish(on_workers, kill_the_training_worker)

    assert "reused (fit-" not in said, "the driver lived"
    for label in ("generation 1 predict", "generation 1 select", "generation 1 gather"):
        assert rows(broken, steps(broken)[label].step) == rows(finished, steps(finished)[label].step)
