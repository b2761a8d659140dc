"""Searches on a real cluster: shared passes are counted in the store, runs are stopped at generation boundaries, a killed search is restored."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.ground.run import Run, pointers
from engine.ground.steps import Store
from engine.recipes.registry import SelfTrainSettings
from engine.search.trials import TrialRecord, TrialRecords
from engine.settings.block import load
from engine.settings.cluster import ClusterSettings
from tests.small_run import small_tree, write_config

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(3000)]

PATIENCE = 1500.0
SPACE = {
    "select.threshold": {"uniform": [0.1, 0.9]},
    "student.noise.pseudo.aa_magnitude": {"integer": [0, 10]},
}


def config(folder: Path, digits: Path, **search: Any) -> Path:
    tree = small_tree(digits, str(folder / "store"), run="s", generations=2)
    return write_config(folder / "search.yaml", {**tree, "search": {"space": SPACE, **search}})


def start(path: Path) -> subprocess.Popen[str]:
    log = open(path.with_suffix(".log"), "a")  # noqa: SIM115
    return subprocess.Popen([sys.executable, "-m", "jobs.search", str(path)], stdout=log, stderr=log, text=True)


def finish(path: Path) -> str:
    process = start(path)
    try:
        assert process.wait(timeout=PATIENCE) == 0, path.with_suffix(".log").read_text()[-5000:]
    finally:
        process.kill()
        process.wait()
    return path.with_suffix(".log").read_text()


def records(folder: Path) -> list[TrialRecord]:
    return TrialRecords(Run(Store(str(folder / "store")), "s", ClusterSettings())).all()


def labels(folder: Path, run: str) -> dict[str, str]:
    """The steps of a run by label."""
    return {pointer.title: pointer.step for pointer in pointers(Store(str(folder / "store")), run)}


def steps(folder: Path, verb: str) -> list[Path]:
    return list((folder / "store" / "steps").glob(f"{verb}-*/step.json"))


def killed_after_a_trial(path: Path, folder: Path) -> dict[str, TrialRecord]:
    """Start the search, kill its driver once a trial is over; returns the records of those that are."""
    process = start(path)
    deadline = time.monotonic() + PATIENCE
    try:
        while not [one for one in records(folder) if one.over]:
            assert process.poll() is None, path.with_suffix(".log").read_text()[-5000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return {one.trial.name: one for one in records(folder) if one.over}


def test_greedy_killed_and_restored_makes_one_pass_a_generation(digits: Path, tmp_path: Path) -> None:
    path = config(tmp_path, digits, mode="greedy", trials=3)
    before = killed_after_a_trial(path, tmp_path)
    made_before = {step: step.stat().st_mtime_ns for verb in ("fit", "predict") for step in steps(tmp_path, verb)}
    said = finish(path)

    after = {one.trial.name: one for one in records(tmp_path)}
    assert len(after) == 6
    assert {one.state for one in after.values()} == {"finished"}
    for name, record in before.items():
        assert after[name] == record
        assert f"trial {name}".ljust(24) + " again" not in said, "a finished trial ran again"
    for step, written in made_before.items():
        assert step.stat().st_mtime_ns == written, "a finished step was made again"
    assert len(steps(tmp_path, "predict")) == 2, "two generations of three students make two passes in all"
    assert len(steps(tmp_path, "fit")) == 1 + 6, "one teacher, and each student once"
    best = load(SelfTrainSettings, tmp_path / "store" / "runs" / "s" / "best.yaml")
    assert best.run == "s-best"
    assert len(best.schedule or []) == best.recipe.num_generations
    runs = [run.name for run in (tmp_path / "store" / "runs").iterdir() if run.name != "s"]
    tested = [
        label for run in runs for label in labels(tmp_path, run) if label.endswith(" test") and "hash" not in label
    ]
    assert len(tested) == 1 + best.recipe.num_generations, "only the winner's run looks at test images"
    assert (tmp_path / "store" / "runs" / "s" / "search.html").read_text().count("<svg") == 3


def test_runs_are_stopped_at_generation_boundaries(digits: Path, tmp_path: Path) -> None:
    path = config(tmp_path, digits, mode="runs", trials=4)
    said = finish(path)
    known = records(tmp_path)
    stopped = [one for one in known if one.state == "stopped"]
    finished = [one for one in known if one.state == "finished"]
    assert stopped, said[-3000:]
    assert all(len(one.reports) == 1 for one in stopped)
    assert all(len(one.reports) == 2 for one in finished)
    for one in stopped:
        labels = {p.title for p in pointers(Store(str(tmp_path / "store")), f"s.{one.trial.name}")}
        assert "generation 2 fit" not in labels, "a stopped run went on"
    passes = {
        p.step
        for one in known
        for p in pointers(Store(str(tmp_path / "store")), f"s.{one.trial.name}")
        if p.title == "generation 1 predict"
    }
    assert len(passes) == 1, "all trials share the first pass"


def test_a_population_killed_and_restored_gives_a_schedule(digits: Path, tmp_path: Path) -> None:
    path = config(tmp_path, digits, mode="population", trials=4)
    before = killed_after_a_trial(path, tmp_path)
    said = finish(path)
    known = {one.trial.name: one for one in records(tmp_path)}
    assert all(known[name] == record for name, record in before.items()), "a finished trial ran again"
    assert "schedule of the best" in said
    second = [one for one in records(tmp_path) if one.trial.cohort == 2]
    assert len(second) == 4
    assert len({one.trial.parent for one in second}) == 3, "the worst copied the best"
    result = yaml.safe_load((tmp_path / "store" / "runs" / "s" / "best.yaml").read_text())
    assert result["schedule"]
