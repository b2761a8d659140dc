"""Durable steps: equal inputs give the same step, any difference another one; only the commit counts."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.ground import storage
from engine.ground.prune import find_unused_steps
from engine.ground.record import StepRecord, canonical, differences, fingerprint
from engine.ground.run import Run, pointers
from engine.ground.steps import Output, Step, Store, StoreError, read_output, read_tables
from engine.settings.cluster import ClusterSettings
from engine.tables import schema


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store")).open()


def table(*values: int) -> pa.Table:
    return pa.table({"x": list(values)})


def test_fingerprint_ignores_order_of_keys_and_sees_every_value() -> None:
    record = {"verb": "fit", "settings": {"lr": 0.1, "steps": 3}, "inputs": {"labelled": "abc"}}
    reordered = {"inputs": {"labelled": "abc"}, "settings": {"steps": 3, "lr": 0.1}, "verb": "fit"}
    assert fingerprint(record) == fingerprint(reordered)
    assert fingerprint(record) != fingerprint({**record, "settings": {"lr": 0.1, "steps": 4}})


def test_fingerprint_is_pinned() -> None:
    """A change of the canonical form would orphan every step of every store: it must be a decision (STORE_VERSION), not an accident."""
    assert canonical({"b": [1, 2.5, None], "a": "é"}) == '{"a":"\\u00e9","b":[1,2.5,null]}'
    assert fingerprint({"verb": "fit", "revision": 1, "settings": {"lr": 0.1}, "inputs": {}}) == "1c699b6a37c4ba08"


def test_differences_name_each_field() -> None:
    old = {"settings": {"lr": 0.1, "noise": {"pad": 4}}, "inputs": {"a": "1"}}
    new = {"settings": {"lr": 0.2, "noise": {"pad": 4}}, "inputs": {"a": "1", "b": "2"}}
    assert differences(old, new) == ["inputs.b: unset -> 2", "settings.lr: 0.1 -> 0.2"]


def test_a_step_is_unfinished_until_committed_and_lists_its_parts(store: Store) -> None:
    step = store.step(StepRecord("predict", 1, {"k": 1}))
    first = step.put_part(1, table(3), {"seconds": 2})
    zero = step.put_part(0, table(1, 2))
    step.put_part(1, table(99))  # a zombie's part: never named by the commit
    assert step.output() is None
    output = step.commit([first, zero], {"rows": 3}, started=0)
    assert read_output(store, step.name) == output
    assert [(part.unit, part.rows, part.stats) for part in output.parts(store.fs)] == [
        (0, 2, {}),
        (1, 1, {"seconds": 2}),
    ]
    assert [t["x"].to_pylist() for _, t in read_tables(output, store.fs)] == [[1, 2], [3]]


def test_digest_depends_on_contents_and_not_on_attempts_or_order(store: Store) -> None:
    outputs: list[Output] = []
    for settings, values in (({"a": 1}, (1, 2)), ({"a": 2}, (1, 2)), ({"a": 3}, (1, 3))):
        step = store.step(StepRecord("predict", 1, settings))
        parts = [step.put_part(unit, table(value)) for unit, value in enumerate(values)]
        outputs.append(step.commit(reversed(parts), {}, started=0))
    assert outputs[0].digest == outputs[1].digest
    assert outputs[0].digest != outputs[2].digest


def test_parts_of_a_killed_attempt_are_found_one_per_unit_and_truncated_ones_are_ignored(store: Store) -> None:
    step = store.step(StepRecord("predict", 1))
    step.put_part(0, table(1), {"rejected": 5})
    step.put_part(2, table(2))
    step.put_part(2, table(2))
    storage.put(store.fs, f"{step.folder}/parts/part-00000003-00000000.parquet", b"torn")
    storage.put(store.fs, f"{step.folder}/parts/unrelated.txt", b"")
    found = step.found_parts()
    assert sorted(found) == [0, 2]
    assert found[0].stats == {"rejected": 5}
    assert found[0].sha256 == step.put_part(0, table(1), {"rejected": 5}).sha256


def test_a_part_changed_after_the_commit_is_an_error_that_names_it(store: Store) -> None:
    step = store.step(StepRecord("predict", 1))
    part = step.put_part(0, table(1))
    output = step.commit([part], {}, started=0)
    storage.put(store.fs, f"{step.folder}/parts/{part.name}", b"changed")
    with pytest.raises(StoreError, match=part.name):
        list(read_tables(output, store.fs))


def test_plan_is_chosen_once(store: Store) -> None:
    step = store.step(StepRecord("predict", 1))
    assert step.plan(lambda: {"batch_size": 64}) == {"batch_size": 64}
    assert step.plan(lambda: {"batch_size": 128}) == {"batch_size": 64}


@pytest.mark.parametrize("version", [1, 99])
def test_a_store_of_another_version_is_refused_with_what_to_do(tmp_path: Path, version: int) -> None:
    """Version 1 named its steps by every setting, those at their defaults too."""
    (tmp_path / "store.json").write_text(f'{{"version": {version}}}')
    with pytest.raises(StoreError, match=f"version {version}, this engine reads version 2. Use another store"):
        Store(str(tmp_path)).open()
    (tmp_path / "store.json").write_text("not json")
    with pytest.raises(StoreError, match="is this a store"):
        Store(str(tmp_path)).open()


def work_of(calls: list[str], value: int) -> Any:
    def work(step: Step) -> Output:
        calls.append(step.name)
        return step.commit([step.put_part(0, table(value))], {}, started=0)

    return work


def test_a_run_computes_a_step_once_logs_changes_and_shares_it_with_other_runs(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    run = Run(store, "one", ClusterSettings())
    first = run.find_or_run_step("fit", StepRecord("fit", 1, {"lr": 0.1}, {"images": "d"}), work_of(calls, 1))
    assert run.find_or_run_step("fit", StepRecord("fit", 1, {"lr": 0.1}, {"images": "d"}), work_of(calls, 1)) == first
    assert (
        Run(store, "two", ClusterSettings()).find_or_run_step(
            "fit", StepRecord("fit", 1, {"lr": 0.1}, {"images": "d"}), work_of(calls, 1)
        )
        == first
    )
    assert len(calls) == 1
    capsys.readouterr()
    run.find_or_run_step("fit", StepRecord("fit", 1, {"lr": 0.2}, {"images": "d"}), work_of(calls, 2))
    assert "settings.lr: 0.1 -> 0.2" in capsys.readouterr().out
    run.find_or_run_step("fit", StepRecord("fit", 2, {"lr": 0.2}, {"images": "d"}), work_of(calls, 2))
    assert "revision: 1 -> 2" in capsys.readouterr().out
    assert len(calls) == 3


def test_prune_keeps_the_steps_of_runs(store: Store) -> None:
    run = Run(store, "one", ClusterSettings())
    old = run.find_or_run_step("fit", StepRecord("fit", 1, {"lr": 0.1}), work_of([], 1))
    new = run.find_or_run_step("fit", StepRecord("fit", 1, {"lr": 0.2}), work_of([], 2))
    assert [pointer.step for pointer in pointers(store, "one")] == [new.step]
    assert find_unused_steps(store) == [old.step]


def test_an_unknown_run_raises_with_the_existing_runs(store: Store) -> None:
    Run(store, "one", ClusterSettings()).find_or_run_step("fit", StepRecord("fit", 1), work_of([], 1))
    with pytest.raises(FileNotFoundError, match=r"no run named 'two'. Existing runs: one"):
        pointers(store, "two")


def test_local_files_are_written_atomically(tmp_path: Path) -> None:
    fs, path = storage.resolve(str(tmp_path / "a" / "b.bin"))
    storage.put(fs, path, b"12")
    storage.put(fs, path, memoryview(b"345"))
    assert storage.get(fs, path) == b"345"
    (tmp_path / "a" / "c.bin.tmp").write_bytes(b"half")
    assert storage.names(fs, str(tmp_path / "a")) == ["b.bin"]
    assert storage.names(fs, str(tmp_path / "none")) == []


def test_join_keeps_a_query_at_the_end() -> None:
    assert storage.join("s3://b/store?scheme=http", "steps", "x") == "s3://b/store/steps/x?scheme=http"
    assert storage.join("/a/store/", "steps") == "/a/store/steps"


def test_a_table_is_read_as_it_was_written(store: Store) -> None:
    """Nested columns keep their type and the class list its hash: tables of two generations can be joined."""
    step = store.step(StepRecord("select", 1))
    empty = schema.pseudo_labels(10, "hash").empty_table()
    output = step.commit([step.put_part(0, empty, {"rejected": 1})], {}, started=0)
    [(_, back)] = read_tables(output, store.fs)
    assert back.schema.equals(empty.schema, check_metadata=True)


def test_transient_errors_of_an_object_store_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES", (0.0, 0.0))
    tries: list[str] = []

    def attempt(message: str, failures: int) -> str:
        tries.append(message)
        if len(tries) <= failures:
            raise OSError(message)
        return "done"

    broke_off = "AWS Error INTERNAL_FAILURE during GetObject operation: Failed to flush response stream"
    assert storage._with_retries(lambda: attempt(broke_off, 2)) == "done"
    for message, failures, expected in (
        (broke_off, 9, 3),
        ("AWS Error ACCESS_DENIED during PutObject operation", 9, 1),
        ("the disk is dying", 9, 1),
    ):
        tries.clear()
        with pytest.raises(OSError, match=message):
            storage._with_retries(lambda message=message, failures=failures: attempt(message, failures))  # type: ignore[misc]
        assert len(tries) == expected, message
