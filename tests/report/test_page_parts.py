"""The values behind the page against plain counting: candidates for pictures, classes, confusions, changes, settings, the graph."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.ground.steps import read_tables
from engine.metrics.churn import churn
from engine.metrics.score import Score
from engine.report.page import sample
from engine.report.page.candidates import accepted, just_below, limits_of
from engine.report.page.generations import class_rows, confusions
from engine.report.page.graph import ancestors
from engine.report.page.label_checks import changed, compare_selections
from engine.report.page.lineage import changed_settings
from engine.report.page.pseudo_labels import pseudo_labels
from engine.report.page.sample import batches, sample_parts
from engine.report.page.source import GenerationRecord, read_record
from engine.report.page.verdict import by_guard
from engine.select.scores import best_score, classes_of
from engine.settings.select import SelectSettings
from engine.tasks.classify import ROWS
from tests.report.page_run import PageRun, Plan, page_run

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> PageRun:
    plan = Plan(NAMES, per_class=60, select=SelectSettings(threshold=0.6, per_class=20))
    return page_run(tmp_path_factory.mktemp("parts") / "run", plan)


def rows_of(run: PageRun, step: int) -> pa.Table:
    return pa.concat_tables(table for _, table in read_tables(run.selections[step], run.store.fs))


@pytest.mark.parametrize("rows", [7, 1 << 17])
def test_best_and_worst_accepted_equal_sorting(run: PageRun, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "BATCH_ROWS", rows)
    found, note = accepted(run.selections[1], run.store, [0, 2], 3)
    assert note == ""
    table = rows_of(run, 1).to_pylist()
    for one in found:
        scores = sorted((row["score"] for row in table if row["class"] == one.class_index), reverse=True)
        assert [picked.score for picked in one.best] == scores[:3]
        assert [picked.score for picked in one.worst] == scores[-1:-4:-1]
    assert [one.class_index for one in found] == [0, 2]


def test_a_small_class_shows_each_image_once(run: PageRun) -> None:
    (found, *_), _ = accepted(run.selections[1], run.store, [0], 15)
    shown = [one.address for one in (*found.best, *found.worst)]
    assert len(shown) == len(set(shown)) == 20


def test_just_below_are_the_nearest_that_were_not_chosen(run: PageRun) -> None:
    report = run.selections[1].summary["report"]["classes"]
    limits = limits_of(report, "max_probability")
    found, _ = just_below(run.predictions[1], run.store, limits, "max_probability", 10)
    chosen = {(row["shard"], row["row"]) for row in rows_of(run, 1).to_pylist()}
    gaps = []
    for _, table in read_tables(run.predictions[1], run.store.fs):
        own, score = classes_of(table)[:, 0], best_score(table, "max_probability").astype(float)
        for place, address in enumerate(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True)):
            if address not in chosen:
                gaps.append((limits[own[place]] - score[place], address))
    assert len(gaps) == 180 - len(chosen)
    assert min(gaps)[0] > -1e-4, "an image above the limit was not chosen"
    gaps = [one for one in gaps if one[0] >= 0]  # ties with the worst that was kept are equal to the limit
    assert [one.address for one in found] == [address for _, address in sorted(gaps)[:10]]
    assert not {one.address for one in found} & chosen


def test_a_sample_of_parts_is_even_and_says_what_it_is_of(run: PageRun) -> None:
    whole = sample_parts(run.predictions[0], run.store)
    assert whole.is_whole
    assert whole.note == ""
    assert sum(table.num_rows for table in batches(whole, run.store.fs)) == 180
    made = run.run.store.step_json(run.predictions[0].step, "step.json")
    assert whole.rows == made["rows"]


def test_changes_between_generations_equal_plain_counting(run: PageRun) -> None:
    record = read_record(run.store, "r")
    part = compare_selections(record, record.selections()[0], record.selections()[1][1], NAMES)
    assert part is not None
    before, after = (
        {(row["shard"], row["row"]): row["class"] for row in rows_of(run, step).to_pylist()} for step in (0, 1)
    )
    both = before.keys() & after.keys()
    pairs = [(NAMES[before[one]], NAMES[after[one]]) for one in both if before[one] != after[one]]
    assert (part.counts.both, part.counts.changed) == (len(both), len(pairs))
    assert pairs, "the case shows nothing"
    assert {(flow.before, flow.after): flow.images for flow in part.flows} == {
        pair: pairs.count(pair) for pair in pairs
    }
    scores = [one.score for one in part.examples]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("classes_per_image", [1, 3])
def test_changes_are_counted_as_the_guard_counts_them(classes_per_image: int) -> None:
    rng = np.random.default_rng(classes_per_image)

    def table() -> pa.Table:
        at = np.repeat(np.sort(rng.choice(400, 200, replace=False)), classes_per_image).astype(np.int32)
        shard, row = at // 50, at % 50
        classes = rng.integers(0, 5, len(at)).astype(np.uint16)
        score = rng.normal(0, 2, len(at)).astype(np.float16)
        return pa.table({"shard": shard, "row": row, "class": classes, "score": score})

    was, now = table(), table()
    counts, rows, classes = changed(was, now)
    assert counts == churn(was, now)
    assert len(rows) == len(classes) == counts.changed > 20
    assert (now["class"].to_numpy()[rows] == classes[:, 1]).all()


def test_right_pseudo_labels_are_those_of_the_pools_labels(run: PageRun) -> None:
    part = pseudo_labels(read_record(run.store, "r"))[1]
    assert part.precision.value is not None
    counted = sum(int(str(row[1])) for row in part.precision.value.chart.rows)
    assert counted == part.kept == 60
    right = len([1 for row in rows_of(run, 1).to_pylist() if (16 * row["shard"] + row["row"]) % 3 == row["class"]])
    assert f"{100 * right / 60:.1f} % of 60 pseudo-labels" in part.precision.value.chart.alt


def test_classes_are_sorted_the_worst_of_the_chosen_model_first() -> None:
    first, last = (Score("s", 0.5, 0, 1, 9, per_class=each) for each in ({"a": 0.9, "b": 0.2}, {"a": 0.4, "b": 0.8}))
    rows = class_rows([first, None, last], 2)
    assert [row.name for row in rows] == ["a", "b"]
    assert rows[0].values == (0.9, None, 0.4)
    assert rows[0].change == pytest.approx(-0.5)
    assert class_rows([None], 0) == ()


def test_confusions_that_changed_most_come_first() -> None:
    def table(truth: list[int], predicted: list[int]) -> pa.Table:
        rows = np.arange(len(truth), dtype=np.int32)
        confidence = np.ones(len(truth), np.float32)
        columns = [0 * rows, rows, np.array(truth, np.int32), np.array(predicted, np.int32), confidence, 0 * rows]
        return pa.table(columns, schema=ROWS)

    before, after = table([0, 0, 0, 1, 2], [1, 1, 1, 1, 0]), table([0, 0, 0, 1, 2], [0, 0, 1, 2, 0])
    found = [(one.truth, one.predicted, one.before, one.after) for one in confusions(before, after, NAMES)]
    assert found == [("a", "b", 3, 1), ("b", "c", 0, 1), ("c", "a", 1, 1)]


def test_only_settings_that_differ_are_named_whatever_group_they_are_in() -> None:
    tree = {
        "run": "r",
        "recipe": {"name": "noisy_student", "generations": 3},
        "select": {"threshold": 0.9, "per_class": None},
        "predict": {"top_p": 8},
        "fits": {"teacher": {"noise": {"labelled": {"hflip": 0.5, "pad": 4}}}},
        "unheard_of": {"key": 1},
    }
    rows = {row.path: (row.value, row.default) for row in changed_settings(tree)}
    assert rows["select.threshold"] == ("0.9", "0.0")
    assert rows["fits.teacher.noise.labelled.pad"][0] == "4"
    assert rows["unheard_of.key"][0] == "1"
    assert not {"fits.teacher.noise.labelled.hflip", "predict.top_p", "select.per_class"} & rows.keys()


def test_a_model_of_another_task_is_compared_with_its_teacher_as_the_guard_did() -> None:
    guard = {"difference": {"value": 0.1}, "detail": "student better by 10.0 points"}
    assert by_guard(GenerationRecord("g", {}, {}, guard=guard)).endswith("images: student better by 10.0 points.")
    assert "not compared" in by_guard(GenerationRecord("g", {}, {}))


def test_ancestors_are_all_that_a_step_was_made_from() -> None:
    edges = [(0, 2), (1, 2), (2, 4), (3, 5)]
    assert ancestors(edges, [4]) == {0, 1, 2, 4}
    assert ancestors(edges, []) == set()


def test_the_templates_are_part_of_the_package() -> None:
    root = Path(__file__).parents[2]
    assert '"engine.report" = ["templates/*"]' in (root / "pyproject.toml").read_text()
    assert not [one for one in (root / "engine" / "report" / "templates").iterdir() if one.is_dir()]
