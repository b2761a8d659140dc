"""`jobs.explain`: the story of an image from the records of a store that a fake run left."""

import sys
from pathlib import Path

import pytest

from engine.report.explain import explain, lineage, records
from jobs import explain as job
from tests.fake_run import FakeRun, Image, fake_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    """K is 2 and the threshold 0.8: `c` is a third cat at first and a dog then, `low` is below the cut."""
    first = [Image("a.jpg", 5), Image("b.jpg", 4), Image("c.jpg", 3), Image("low.jpg", 1)]
    then = [Image("a.jpg", 5), Image("b.jpg", 4), Image("c.jpg", -3), Image("low.jpg", 4.5)]
    return fake_run(tmp_path_factory.mktemp("explain"), [first, then])


def story(finished: FakeRun, key: str) -> str:
    return "\n".join(explain(records(finished.store, "r"), key))


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
    with pytest.raises(FileNotFoundError, match="runs here: r"):
        records(finished.store, "nothing")


def test_lineage_goes_down_to_the_labelled_images(finished: FakeRun) -> None:
    told = lineage(records(finished.store, "r"), finished.steps["generation 2 select"])
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
