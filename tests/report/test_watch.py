"""`jobs.status --watch`: it ends with the run, a plain line for each step that moved where there is no terminal."""

import io
import sys
from pathlib import Path

import pytest

from engine.report.console import Console
from jobs import status as job
from tests.report.page_run import PageRun, Plan, page_run


@pytest.fixture
def run(tmp_path: Path) -> PageRun:
    return page_run(tmp_path / "run", Plan(("cat", "dog"), generations=1))


def without_result(run: PageRun, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The run before its result, which comes while the first pause lasts; returns the pauses."""
    metrics = Path(run.run.folder) / "metrics.json"
    text = metrics.read_text()
    metrics.unlink()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            metrics.write_text(text)
        assert len(pauses) < 5, "it does not end"

    monkeypatch.setattr(job.time, "sleep", pause)
    return pauses


def test_each_step_is_one_line_until_it_moves(
    run: PageRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pauses = without_result(run, monkeypatch)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["status", run.store.uri, "r", "--watch", "3"])
    job.main()
    assert pauses == [3, 3]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert sum("generation 1 select " in line and "done" in line for line in lines) == 1


def test_a_terminal_shows_one_screen(run: PageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    without_result(run, monkeypatch)
    file = io.StringIO()
    job.watch(run.store, "r", 1, Console(file=file, force_terminal=True, width=160))
    assert "\x1b[" in file.getvalue(), "drawn again over the last one"
    assert "generation 1 predict" in file.getvalue()


def test_one_run_is_watched(run: PageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["--watch"], ["r", "--watch", "0"]):
        monkeypatch.setattr(sys, "argv", ["status", run.store.uri, *arguments])
        with pytest.raises(ValueError, match="looks at one run"):
            job.main()
