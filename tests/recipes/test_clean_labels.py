"""Planted label errors on digits: no image is judged by a model that saw it, most of the list is truly wrong, and verdicts are obeyed."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.ground import storage
from engine.ground.run import pointers
from engine.ground.steps import Output, Store, read_output, read_tables
from jobs.self_train import self_train
from tests.small_run import small_settings, small_tree

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

ROWS, WRONG, FOLDS = 600, 60, 3


def planted(digits: Path, folder: Path) -> tuple[str, str, set[str]]:
    """A labelled table with wrong labels, a table of the truth, and the keys that were touched."""
    table = pq.read_table(digits / "pool.parquet").slice(0, ROWS)
    truth = np.array(table["label"].to_pylist())
    rng = np.random.default_rng(0)
    touched = rng.permutation(ROWS)[:WRONG]
    given = truth.copy()
    given[touched] = [str((int(one) + rng.integers(1, 10)) % 10) for one in truth[touched]]
    pq.write_table(
        pa.table({"key": table["key"], "image": table["image"], "label": given}), folder / "labelled.parquet"
    )
    pq.write_table(pa.table({"key": table["key"], "label": truth}), folder / "truth.parquet")
    keys = np.array(table["key"].to_pylist())
    return str(folder / "labelled.parquet"), str(folder / "truth.parquet"), set(keys[touched])


def test_planted_errors_are_found_by_models_that_never_saw_them(digits: Path, tmp_path: Path) -> None:
    labelled, truth, touched = planted(digits, tmp_path)
    store = str(tmp_path / "store")
    tree = small_tree(digits, store)
    data = {**tree["data"], "labelled": labelled, "pool": None, "rows_per_shard": 100}
    fit = {**tree["fits"]["teacher"], "steps": 120, "batch": {"labelled": 64}}
    clean = {"folds": FOLDS, "truth": truth, "relabel_above": 0.9, "top": 80}
    changed: dict[str, Any] = {"recipe": "clean_labels", "data": data, "teacher": fit, **clean}
    report: Any = self_train(small_settings(digits, store, **changed))
    assert [row["name"] for row in report["generations"]] == ["as given", "clean"]

    steps = {pointer.title: read_output(Store(store), pointer.step) for pointer in pointers(Store(store), "run")}
    judged: set[str] = set()
    for fold in range(FOLDS):
        seen, unseen = (
            keys(steps[f"fold {fold} gather"], store),
            addressed(steps[f"fold {fold} predict"], store, labelled),
        )
        assert seen
        assert unseen
        assert not seen & unseen, "an image was judged by a model that trained on it"
        judged |= unseen
    assert len(judged) == ROWS

    facts = json.loads((Path(store) / "runs/run/audit.json").read_text())
    assert facts["scored"] == ROWS
    assert facts["precision"]["10"] >= 0.8
    assert facts["recall"] > 0.5
    assert facts["wrong_after_relabelling"] < facts["wrong"] == WRONG
    listed = list(csv.DictReader((Path(store) / "runs/run/audit.csv").open(newline="")))
    assert [float(row["confidence"]) for row in listed] == sorted(
        (float(r["confidence"]) for r in listed), reverse=True
    )
    assert np.mean([row["key"] in touched for row in listed[:10]]) == facts["precision"]["10"]

    verdicts = tmp_path / "reviewed.csv"
    verdicts.write_text(f"key,label\n{listed[0]['key']},\n{listed[1]['key']},3\n")
    reviewed = {**changed, "relabel_above": None, "reviewed": str(verdicts)}
    self_train(small_settings(digits, store, **reviewed))
    relabelled = {pointer.title: read_output(Store(store), pointer.step) for pointer in pointers(Store(store), "run")}[
        "relabel"
    ]
    assert relabelled is not None
    assert relabelled.summary == {"changed": int(listed[1]["label"] != "3"), "left_out": 1}


def keys(output: Output | None, store: str) -> set[str]:
    """Keys of the images that a gather step holds."""
    assert output is not None
    return {key for _, table in read_tables(output, Store(store).fs, ["key"]) for key in table["key"].to_pylist()}


def addressed(output: Output | None, store: str, labelled: str) -> set[str]:
    """Keys of the images that a predict step answered; the labelled set is one file of shards of 100 rows."""
    assert output is not None
    fs, path = storage.resolve(labelled)
    names = pq.read_table(io.BytesIO(storage.get(fs, path)))["key"].to_pylist()
    tables = [table for _, table in read_tables(output, Store(store).fs, ["shard", "row"])]
    return {names[100 * row["shard"] + row["row"]] for table in tables for row in table.to_pylist()}
