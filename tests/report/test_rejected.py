"""What a run rejected is listed with keys, reasons and counts."""

import csv
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store
from engine.settings.cluster import ClusterSettings
from engine.tables import schema
from jobs import status


def test_the_quarantine_of_a_run_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        (0, 3, "=a.jpg", "truncated: 7 bytes"),
        (0, 5, "b, c.jpg", "excluded as in test"),
        (2, 0, "d.jpg", "truncated"),
    ]

    def work(step: Step) -> Output:
        for shard in (0, 2):
            chosen = [row for row in rows if row[0] == shard]
            columns = [list(column) for column in zip(*chosen, strict=True)]
            step.put_sidecar("quarantine", shard, pa.table(columns, schema=schema.QUARANTINE))
        return step.commit([], {}, 0)

    run = Run(Store(str(tmp_path)), "r", ClusterSettings())
    run.find_or_run_step("predict generation 1", StepRecord("predict", 1), work)
    monkeypatch.setattr(sys, "argv", ["status", str(tmp_path), "r", "--rejected"])
    capsys.readouterr()
    status.main()
    shown = capsys.readouterr()
    header, *listed = csv.reader(shown.out.splitlines())
    assert header == ["title", "shard", "row", "key", "reason"]
    assert [row[1:] for row in listed] == [[str(value) for value in row] for row in rows]
    assert shown.err.strip() == "predict generation 1: 2 truncated, 1 excluded as in test"


def test_rejected_needs_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(str(tmp_path)).open()
    monkeypatch.setattr(sys, "argv", ["status", str(tmp_path), "--rejected"])
    with pytest.raises(ValueError, match="name it"):
        status.main()
