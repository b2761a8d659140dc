"""Every recipe on digits, its driver killed with SIGKILL in the middle of a fit and between steps: the same command goes on, and nothing that was
finished is made again. Minutes each."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.small_run import small_tree, write_config
from tests.test_kill_and_resume import finish, kill_when, steps

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

FIT = small_tree(Path("digits"), "store")["teacher"]
PAIRS = {"student": {**FIT, "batch": {"pseudo": 32}, "noise": {}}, "finetune": {**FIT, "steps": 20, "lr": 0.02}}

CHANGED: dict[str, dict[str, Any]] = {
    "noisy_student": {},
    "threshold": {"select": {"threshold": 0.5, "targets": "hard"}},
    "supervised": {"generations": 0},
    "billion_scale": {**PAIRS, "select": {"per_class": 20, "classes_per_image": 3, "targets": "hard"}},
    "self_distillation": {"student": None, "generations": 2, "distil": {"truth_share": 0.35}},
}


@pytest.mark.parametrize("recipe", CHANGED)
def test_killed_in_a_fit_and_between_steps(recipe: str, digits: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    config = write_config(tmp_path / "config.yaml", small_tree(digits, str(store), recipe=recipe, **CHANGED[recipe]))
    kill_when(config, lambda: any(store.glob("steps/fit-*/train/checkpoint_*/state.pt")))
    assert not any(store.glob("steps/fit-*/step.json")), "the fit was already over"
    kill_when(config, lambda: any(store.glob("steps/fit-*/step.json")))
    finished = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("steps/*/step.json")}

    finish(config)
    for name, made in finished.items():
        assert (store / "steps" / name / "step.json").stat().st_mtime_ns == made, f"{name} was made again"
    report = json.loads((store / "runs/run/metrics.json").read_text())
    assert all(row["test"]["images"] == 400 for row in report["generations"])
    assert len(report["generations"]) == 1 + small_tree(digits, "store", **CHANGED[recipe])["generations"]

    before = {label: pointer.step for label, pointer in steps(str(store)).items()}
    assert " made " not in finish(config), "a finished run computed something again"
    assert {label: pointer.step for label, pointer in steps(str(store)).items()} == before
