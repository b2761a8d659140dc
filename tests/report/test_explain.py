"""`jobs.explain`: the story of an image from the records of a store that a fake run left."""

import sys
from pathlib import Path

import numpy as np
import pytest

from engine.ground.run import Run
from engine.ground.steps import Output
from engine.labels.mixture import mix_table
from engine.report.explain import explain, lineage, read_history
from engine.select.reassign import reassign
from engine.select.select import Selector
from engine.select.sticky import carry_over
from engine.settings.cluster import ClusterSettings
from engine.settings.select import SelectSettings
from jobs import explain as job
from tests.fake_run import CLASSES, FakeRun, Image, fake_run, made, table_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """K is 2 and the threshold 0.8: `c` is a third cat at first and a dog then, `low` is below the cut."""
    first = [Image("a.jpg", 5), Image("b.jpg", 4), Image("c.jpg", 3), Image("low.jpg", 1)]
    then = [Image("a.jpg", 5), Image("b.jpg", 4), Image("c.jpg", -3), Image("low.jpg", 4.5)]
    return fake_run(tmp_path_factory.mktemp("explain"), [first, then])


def story(finished: FakeRun, key: str) -> str:
    return "\n".join(explain(read_history(finished.store, "r"), key))


def test_chosen_with_rank_score_and_teacher(finished: FakeRun) -> None:
    told = story(finished, "b.jpg").splitlines()
    assert "generation 1 predict: shard 0" in told[0]
    assert finished.steps["teacher fit"].step in told[0]
    assert "predicted cat 0.9820 (log-odds 4), dog 0.0180" in told[1]
    assert "chosen as cat, rank 2 of 2, score 0.9820" in told[2]
    assert finished.steps["generation 1 fit"].step in told[3]


def test_which_cut_was_failed(finished: FakeRun) -> None:
    assert "probability 0.7311 for cat is not above the cut 0.8" in story(finished, "low.jpg")
    told = story(finished, "c.jpg")
    assert "above the cut 0.8" in told
    assert "the 2 kept of 3 are better, down to 0.9820" in told
    assert "chosen as dog, rank 1 of 1" in told


def test_quarantined_and_unknown(finished: FakeRun) -> None:
    assert story(finished, "zz-broken.jpg").count("not labelled: truncated") == 2
    with pytest.raises(ValueError, match="no image of this run's pool has this key"):
        story(finished, "stranger.jpg")
    with pytest.raises(FileNotFoundError, match="Existing runs: r"):
        read_history(finished.store, "nothing")


def test_lineage_goes_down_to_the_labelled_images(finished: FakeRun) -> None:
    told = lineage(read_history(finished.store, "r"), finished.steps["generation 2 select"])
    text = "\n".join(told)
    for label in ("generation 2 predict", "generation 1 fit", "generation 1 select", "teacher fit", "gather labelled"):
        assert f"({label})" in text
    assert "2 images at" in text
    assert text.index("generation 2 predict") < text.index("generation 1 fit") < text.index("teacher fit")


def test_the_job_prints_it(
    finished: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["explain", finished.store.uri, "r", "a.jpg"])
    job.main()
    said = capsys.readouterr().out
    assert "chosen as cat, rank 1 of 2" in said
    assert "lineage of the last selection" in said


def test_a_run_that_was_copied_is_explained_all_the_same(finished: FakeRun, tmp_path: Path) -> None:
    """Records name steps, not machines: the labelled folder and the pool may be gone."""
    (Path(finished.store.root).parent / "pool").rename(tmp_path / "gone")
    assert "chosen as cat" in story(finished, "a.jpg")
    (tmp_path / "gone").rename(Path(finished.store.root).parent / "pool")


def selection(finished: FakeRun, run: Run, label: str, predictions: str, settings: SelectSettings) -> Output:
    """Another selection from the predictions of a step of the fake run."""
    selector = Selector(settings, CLASSES)
    selector.update(table_of(finished, predictions))
    chosen, report = selector.finish()
    inputs = {"predictions": finished.steps[predictions].digest, "classes": CLASSES.hash}
    output = made(run, label, "select", chosen, inputs, settings=settings.model_dump(), report=report.as_dict())
    finished.steps[label] = output
    return output


@pytest.fixture
def relabelled(tmp_path: Path) -> FakeRun:
    """A run of two teachers, the second of which relabels what was chosen from the first: `c` was too low, `b` is a dog then."""
    first = [Image("a.jpg", 5), Image("b.jpg", 4), Image("c.jpg", 3), Image("d.jpg", -2)]
    then = [Image("a.jpg", 6), Image("b.jpg", -0.5), Image("c.jpg", 7), Image("d.jpg", -3)]
    return fake_run(tmp_path, [first, then])


def test_relabelled_images_and_those_that_were_never_chosen(relabelled: FakeRun) -> None:
    """`relabel: filtered`: the label of the second generation is that of reassign, not of the selection of everything before it."""
    run = Run(relabelled.store, "r", ClusterSettings())
    everything = selection(relabelled, run, "relabel all", "generation 2 predict", SelectSettings())
    table = reassign(table_of(relabelled, "generation 1 select"), table_of(relabelled, "relabel all"))
    inputs = {"filtered": relabelled.steps["generation 1 select"].digest, "fresh": everything.digest}
    made(run, "generation 2 reassign", "reassign", table, inputs)
    a, b, c = (story(relabelled, f"{name}.jpg") for name in "abc")
    assert "generation 2 reassign: relabelled as cat, rank 1, score 0.9975" in a
    assert "generation 1 select: chosen as cat" in b
    assert "generation 2 reassign: relabelled as dog" in b
    assert "score 0.6225 (log-odds 0.5), drawn 1x an epoch; chosen by generation 1 select" in b
    assert "generation 2 reassign: no label: generation 1 select did not choose it" in c
    assert "relabel all" not in a + b + c


def test_an_image_that_the_relabelling_teacher_could_not_read(relabelled: FakeRun) -> None:
    run = Run(relabelled.store, "r", ClusterSettings())
    everything = selection(relabelled, run, "relabel all", "generation 2 predict", SelectSettings())
    inputs = {"filtered": relabelled.steps["generation 1 select"].digest, "fresh": everything.digest}
    table = table_of(relabelled, "generation 1 select")
    made(run, "generation 2 reassign", "reassign", table.slice(0, 0), inputs)
    assert "reassign: no label: chosen by generation 1 select, but this teacher has no" in story(relabelled, "b.jpg")


def test_true_labels_mixed_into_the_targets(relabelled: FakeRun) -> None:
    """Self-distillation learns the mixture: 0.4 of the label `dog`, and 0.6 of a soft answer that is cat by 0.982."""
    run = Run(relabelled.store, "r", ClusterSettings())
    answers = relabelled.steps["generation 1 select"]
    table = table_of(relabelled, "generation 1 select")
    mixture = mix_table(table, np.ones(len(table), np.int64), 0.4, 2)
    made(run, "round 1 mix", "mix", mixture, {"answers": answers.digest}, settings={"truth_share": 0.4})
    told = story(relabelled, "b.jpg")
    assert "generation 1 select: chosen as cat" in told
    assert "round 1 mix: target cat 0.5892, dog 0.4108 (share of the true label 0.4)" in told
    assert "round 1 mix: no target" in story(relabelled, "c.jpg")


def test_a_label_that_was_kept_names_the_selection_that_gave_it(relabelled: FakeRun) -> None:
    """The sticky mode: `b` stays the cat that it was, although the second teacher calls it a dog; `c` is new."""
    run = Run(relabelled.store, "r", ClusterSettings())
    settings = SelectSettings(threshold=0.9)
    keep = relabelled.steps["generation 1 select"]
    fresh = selection(relabelled, run, "fresh", "generation 2 predict", settings)
    table = carry_over(table_of(relabelled, "generation 1 select"), table_of(relabelled, "fresh"))
    inputs = {"predictions": relabelled.steps["generation 2 predict"].digest, "keep": keep.digest}
    report = fresh.summary["report"]
    made(run, "sticky 2", "select", table, inputs, settings=settings.model_dump(), report=report)
    assert "sticky 2: label kept since generation 1 select: cat, rank 2" in story(relabelled, "b.jpg")
    assert "sticky 2: chosen as cat, rank 3" in story(relabelled, "c.jpg")
