"""Every recipe on digits, its driver killed with SIGKILL in the middle of a fit and between steps: the same command goes on, and nothing that was
finished is made again. Minutes each."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.small_run import small_tree, write_config
from tests.test_kill_and_resume import finish, kill_when, steps

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

FIT = small_tree(Path("digits"), "store")["fits"]["teacher"]
PAIRS = {"student": {**FIT, "batch": {"pseudo": 32}, "noise": {}}, "finetune": {**FIT, "steps": 20, "lr": 0.02}}

TAGGING = {
    "tagging": {**FIT, "batch": {"tags": 32}, "noise": {}},
    "tags": {"table": "tags.parquet"},
    "transfer": "frozen",
}
SELECT = {"select": {"per_class": 20, "classes_per_image": 3, "targets": "hard"}}

CHANGED: dict[str, tuple[int, dict[str, Any]]] = {
    "noisy_student": (
        3,
        {
            "generations": 2,
            "relabel": "filtered",
            "finetune": {**FIT, "steps": 10, "freeze": ["body.0"]},
            "finetune_img_size": 20,
        },
    ),
    "threshold": (2, {"select": {"threshold": 0.5, "targets": "hard"}}),
    "supervised": (1, {}),
    "billion_scale": (2, {**PAIRS, **SELECT}),
    "self_distillation": (3, {"student": None, "generations": 2, "truth_share": 0.35}),
    "clean_labels": (3, {"folds": 2, "select": {"threshold": 0.5, "targets": "hard"}}),
    "hashtags": (1, TAGGING),
    "semi_weakly_supervised": (2, {**TAGGING, **PAIRS, **SELECT}),
}
"""Models that each recipe ends with, and its settings."""


def write_tags(digits: Path, path: Path) -> str:
    """The pool's images tagged with the names of their digits."""
    pool = pq.read_table(digits / "pool.parquet", columns=["key", "label"])
    pq.write_table(
        pa.table({"key": pool["key"], "tags": [f"#digit{label}" for label in pool["label"].to_pylist()]}), path
    )
    return str(path)


@pytest.mark.parametrize("recipe", CHANGED)
def test_killed_in_a_fit_and_between_steps(recipe: str, digits: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    models, changed = CHANGED[recipe]
    if "tags" in changed:
        changed = {**changed, "tags": {**changed["tags"], "table": write_tags(digits, tmp_path / "tags.parquet")}}
    config = write_config(tmp_path / "config.yaml", small_tree(digits, str(store), recipe=recipe, **changed))
    kill_when(config, lambda: any(store.glob("steps/fit-*/train/state-*.pt")))
    assert not any(store.glob("steps/fit-*/step.json")), "the fit was already over"
    kill_when(config, lambda: any(store.glob("steps/fit-*/step.json")))
    finished = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("steps/*/step.json")}

    finish(config)
    for name, made in finished.items():
        assert (store / "steps" / name / "step.json").stat().st_mtime_ns == made, f"{name} was made again"
    report = json.loads((store / "runs/run/metrics.json").read_text())
    assert all(row["test"]["images"] == 400 for row in report["generations"])
    assert len(report["generations"]) == models

    before = {label: pointer.step for label, pointer in steps(str(store)).items()}
    assert " done in " not in finish(config), "a finished run computed something again"
    assert {label: pointer.step for label, pointer in steps(str(store)).items()} == before
