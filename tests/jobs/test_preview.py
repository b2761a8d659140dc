"""`jobs.preview`: exact counts from the histogram, counted once."""

import sys
from pathlib import Path

import pytest

from engine.report.preview import preview_thresholds
from engine.select import histogram_step
from engine.select.histogram_step import histograms
from jobs import preview
from tests.fake_run import FakeRun, Image, fake_run


@pytest.fixture
def finished(tmp_path: Path) -> FakeRun:
    return fake_run(tmp_path, [[Image("a.jpg", 5), Image("b.jpg", 4), Image("c.jpg", 1), Image("d.jpg", -2)]])


def test_the_second_preview_reads_no_predictions(finished: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = finished.steps["generation 1 predict"]
    first = histograms(finished.store, predictions, 2)
    monkeypatch.setattr(histogram_step, "count", lambda *_: pytest.fail("counted twice"))
    again = histograms(finished.store, predictions, 2)
    assert again.best.table().equals(first.best.table())
    assert again.stored.table().equals(first.stored.table())
    (outcome,) = preview_thresholds(again.best, [0.8], per_class=1)
    assert outcome.available.tolist() == [2, 1]
    assert outcome.kept.tolist() == [1, 1]
    assert outcome.lowest[0] == pytest.approx(1 / (1 + 2.718281828**-5), abs=1e-6)


def test_the_table_is_printed(
    finished: FakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = finished.steps["generation 1 predict"].step
    monkeypatch.setattr(
        sys, "argv", ["preview", finished.store.uri, step, "--thresholds", "0.8", "0.97", "--per-class", "1"]
    )
    preview.main()
    output = capsys.readouterr().out
    assert "> 0.8, K=1" in output
    assert "1 of 2, down to 0.9933" in output
    assert "2 of 3" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["no-step"], "not a finished predict step"), (["STEP", "--thresholds", "2"], "2.0 is not")],
)
def test_user_errors_are_reported(
    finished: FakeRun, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = finished.steps["generation 1 predict"].step
    words = [step if word == "STEP" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["preview", finished.store.uri, *words])
    with pytest.raises(ValueError, match=message):
        preview.main()
