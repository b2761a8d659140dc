"""The main job on real digits: on disk and on S3, with changed settings, with broken and held-out images, with mistakes."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm

from engine.ground import storage
from engine.ground.run import pointers
from engine.ground.steps import Store, read_output, read_tables
from engine.predict.pipeline import TooManyRejectsError
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import parse
from jobs.self_train import self_train
from tests.small_run import small_settings, small_tree

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def step_names(store: str, run: str = "run") -> dict[str, str]:
    return {pointer.title: pointer.step for pointer in pointers(Store(store), run)}


def rows(store: str, step: str) -> list[dict[str, Any]]:
    output = read_output(Store(store), step)
    assert output is not None
    return [row for _, table in read_tables(output, Store(store).fs) for row in table.to_pylist()]


def test_the_table_the_metrics_and_the_model_are_there(finished: str) -> None:
    report = json.loads((Path(finished) / "runs/run/metrics.json").read_text())
    teacher, student = report["generations"]
    assert teacher["name"] == "teacher"
    assert student["test"]["low"] < student["test"]["value"] < student["test"]["high"]
    assert student["test"]["images"] == 400
    assert student["pseudo_labels"] > 300
    assert student["pseudo_correct"] > 0.4
    loaded = timm.create_model(f"local-dir:{student['model']}")
    assert loaded.num_classes == 10


def test_weights_moved_and_the_student_is_another_model(finished: str) -> None:
    names = step_names(finished)
    outputs = [read_output(Store(finished), names[label]) for label in ("teacher fit", "generation 1 fit")]
    assert outputs[0] is not None
    assert outputs[1] is not None
    assert outputs[0].digest != outputs[1].digest
    assert outputs[0].summary["loss"] < 2.3, "the teacher is no better than a guess"


def test_a_teacher_that_exists_teaches_and_nothing_is_trained_for_it(finished: str, digits: Path) -> None:
    """A fit step of the store: all later steps are those of the run that trained it. Other classes are refused before the pool is read."""
    before = step_names(finished, "run")
    tree = small_tree(digits, finished, run="given")
    tree["recipe"]["teacher"] = before["teacher fit"]
    report: Any = self_train(parse(SelfTrainSettings, tree, "given"))
    names = step_names(finished, "given")
    assert "teacher fit" not in names
    assert names["generation 1 fit"] == before["generation 1 fit"]
    assert [row["name"] for row in report["generations"]] == ["teacher", "generation 1"]
    tree["data"]["classes"] = [str(digit) for digit in reversed(range(10))]
    with pytest.raises(ValueError, match="the same names in another order"):
        self_train(parse(SelfTrainSettings, tree, "given"))


@pytest.mark.slow
def test_on_s3_every_step_is_the_same(finished: str, digits: Path, s3: str) -> None:
    store = s3.format("store")
    self_train(small_settings(digits, store))
    assert step_names(store) == step_names(finished)
    for label in ("generation 1 predict", "generation 1 select"):
        assert rows(store, step_names(store)[label]) == rows(finished, step_names(finished)[label])


def test_a_changed_setting_reruns_only_what_depends_on_it(
    finished: str, digits: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    self_train(small_settings(digits, finished, run="other", select={"threshold": 0.6}))
    self_train(small_settings(digits, finished, run="other", select={"threshold": 0.7}))
    said = capfd.readouterr().out
    assert "settings.threshold: 0.6 -> 0.7" in said
    before, after = step_names(finished), step_names(finished, "other")
    changed = {label for label in before if before[label] != after[label]}
    dependent = (
        "select",
        "gather select order",
        "gather",
        "fit",
        "validation predict",
        "validation",
        "test predict",
        "test",
    )
    assert changed == {f"generation 1 {step}" for step in dependent}


def test_a_run_leaves_its_page_and_the_cards_of_its_models(finished: str, digits: Path) -> None:
    report: Any = self_train(small_settings(digits, finished, run="page", report={"page": True}))
    page = (Path(finished) / "runs/page/report.html").read_text()
    assert f"Use {'the ' * (report['chosen'] == 'teacher')}{report['chosen']}: " in page
    assert "400 test images" in page
    assert "(reused)" in page
    assert "data:image/jpeg" in page
    assert 'class="problem"' not in page
    for row in report["generations"]:
        assert "pretrained=True" in (Path(row["model"]) / "README.md").read_text()


@pytest.mark.slow
def test_threshold_recipe_sticky_keeps_what_was_accepted(digits: Path, finished: str) -> None:
    changed = {
        "recipe": "threshold",
        "relabel": "sticky",
        "generations": 2,
        "run": "sticky",
        "select": {"threshold": 0.5, "targets": "hard"},
    }
    report = self_train(small_settings(digits, finished, **changed))
    names = step_names(finished, "sticky")
    first, second = (rows(finished, names[f"round {number} select"]) for number in (1, 2))
    accepted = [{(row["shard"], row["row"]): row["class"] for row in rows_of} for rows_of in (first, second)]
    assert accepted[0].items() <= accepted[1].items(), "an accepted label changed"
    assert len(accepted[1]) > len(accepted[0])
    assert len(accepted[1]) == len(second), "an image was accepted twice"
    generations: Any = report["generations"]
    assert generations[2]["pseudo_labels"] == len(second)


def pool_with(digits: Path, path: Path, *extra: tuple[str, bytes]) -> str:
    table = pq.read_table(digits / "pool.parquet").slice(0, 200)
    keys, images = zip(*extra, strict=True)
    more = pa.table({"key": list(keys), "image": list(images), "label": ["0"] * len(extra)}, schema=table.schema)
    pq.write_table(pa.concat_tables([table, more]), path)
    return str(path)


def test_broken_images_are_quarantined_and_held_out_ones_excluded(digits: Path, tmp_path: Path) -> None:
    in_test = next((digits / "test").rglob("*.png")).read_bytes()
    pool = pool_with(
        digits, tmp_path / "pool.parquet", ("broken", b"\xff\xd8\xff\xe0 torn"), ("leak", in_test), ("nothing", b"")
    )
    settings = small_settings(digits, str(tmp_path / "store"))
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update={"pool": pool, "max_rejected_percent": 5.0})}
    )
    self_train(settings)
    store = Store(settings.store)
    predicted = read_output(store, step_names(settings.store)["generation 1 predict"])
    assert predicted is not None
    assert predicted.summary["images"] == 200
    assert predicted.summary["rejected"] == 2
    assert predicted.summary["excluded"] == 1
    quarantine = f"{predicted.folder}/quarantine"
    aside = [
        row
        for name in storage.names(store.fs, quarantine)
        for row in pq.read_table(io.BytesIO(storage.get(store.fs, f"{quarantine}/{name}"))).to_pylist()
    ]
    assert {row["key"] for row in aside} == {"broken", "leak", "nothing"}
    assert next(row["reason"] for row in aside if row["key"] == "leak").startswith("excluded")


def test_too_many_broken_images_fail_the_run_and_keep_what_was_labelled(
    digits: Path, finished: str, tmp_path: Path
) -> None:
    pool = pool_with(digits, tmp_path / "pool.parquet", *((f"broken-{i}", b"torn") for i in range(30)))
    settings = small_settings(digits, finished, run="broken")
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update={"pool": pool, "max_rejected_percent": 5.0})}
    )
    with pytest.raises(TooManyRejectsError, match=r"limit data\.max_rejected_percent=5\): \d+ \w+"):
        self_train(settings)
    assert list(
        (Path(finished) / "steps" / step_names(finished, "broken")["generation 1 predict"] / "parts").glob("*.parquet")
    )


def with_data(digits: Path, tmp_path: Path, **data: Any) -> Any:
    settings = small_settings(digits, str(tmp_path / "store"))
    return settings.model_copy(update={"data": settings.data.model_copy(update=data)})


def test_a_missing_path_is_named(digits: Path, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="nowhere"):
        self_train(with_data(digits, tmp_path, pool="/nowhere"))


def test_a_class_without_images_and_lists_that_differ_are_told(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image for the classes"):
        self_train(with_data(digits, tmp_path, classes=[str(i) for i in range(11)]))
    with pytest.raises(ValueError, match=r"labelled: .*not among the 9 classes"):
        self_train(with_data(digits, tmp_path, classes=[str(i) for i in range(9)]))


def test_sets_that_overlap_are_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"validation.*test|test.*validation"):
        self_train(with_data(digits, tmp_path, validation=str(digits / "test")))


@pytest.mark.slow
def test_k_larger_than_what_exists_is_told_with_counts(
    digits: Path, finished: str, capfd: pytest.CaptureFixture[str]
) -> None:
    self_train(small_settings(digits, finished, run="quota", select={"per_class": 500}))
    assert "500" in capfd.readouterr().out


@pytest.mark.slow
def test_a_calibrated_teacher_and_an_adaptive_cut_that_counts_first_and_obeys_its_ceiling(
    finished: str, digits: Path
) -> None:
    cut = {"cut": "adamatch", "at_most": 0.5, "balance": "truncate"}
    predict = {"top_p": 4, "batch_size": 16, "calibrate": True}
    report: Any = self_train(small_settings(digits, finished, run="adaptive", select=cut, predict=predict))
    names = step_names(finished, "adaptive")
    fitted = read_output(Store(finished), names["generation 1 predict calibrate"])
    assert fitted is not None
    assert 0 < fitted.summary["temperature"] < float("inf")
    counted, chosen = (read_output(Store(finished), names[f"generation 1 select{x}"]) for x in (" histogram", ""))
    assert counted is not None
    assert chosen is not None
    assert 0 < chosen.summary["report"]["available"] <= 0.5 * counted.summary["images"]
    assert report["generations"][1]["guard"]["selected_share"] < 0.5
    assert "generation 1 select labelled" in names
    store = Store(finished)
    pool, labelled = (
        store.step_json(names[f"generation 1 {one}"], "record.json")["settings"]
        for one in ("predict", "select labelled predict")
    )
    assert pool["temperature"] == labelled["temperature"] == fitted.summary["temperature"]
