"""What `status` reads from a store alone."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from engine.ground.record import StepRecord
from engine.ground.run import Pointer
from engine.ground.steps import Step, Store
from engine.report.status import pace, step_status


@pytest.fixture
def working(tmp_path: Path) -> Step:
    """An unfinished labelling step of ten shards of which six are done, one put twice."""
    step = Step(Store(str(tmp_path / "store")).open(), StepRecord("predict", 1, {}))
    step.begin()
    step.plan(lambda: {"shards": 10, "images": 1000})
    for unit in (0, 1, 2, 3, 4, 5, 5):
        stats = {"reasons": {"truncated": 2, "empty": 1} if unit == 3 else {}, "rejected": 3 if unit == 3 else 0}
        cost = {"read": 0.5, "decode": 6.0 if unit == 4 else 2.0, "infer": 1.0}
        step.put_part(unit, pa.table({"row": list(range(97))}), stats, cost)
    for path in (tmp_path / "store/steps" / step.name / "parts").iterdir():
        unit = int(path.name.split("-")[1])
        os.utime(path, (1000 + 2 * unit, 1000 + 2 * unit))
    return step


def test_a_working_step_is_told_from_listing_and_footers(working: Step) -> None:
    status = step_status(working.store, Pointer("predict", working.name, working.record, 0.0), now=1013)
    assert (status.state, status.done, status.total) == ("working", 6, 10)
    assert status.detail.startswith("0.50 shards/s, 50 images/s, 8 s left, last part 3 s ago; bound by decode")
    assert status.more[0] == "skipped: truncated 2, empty 1"
    assert status.more[1].startswith("slowest shards 4 (7.5 s)")


def test_a_finished_step_tells_its_rejects_by_reason(working: Step) -> None:
    parts = working.found_parts()
    working.commit(parts.values(), {"images": 582, "rejected": 3, "reasons": {"truncated": 2, "empty": 1}}, 0.0)
    status = step_status(working.store, Pointer("predict", working.name, working.record, 0.0))
    assert status.state == "done"
    assert status.more == ("skipped: truncated 2, empty 1",)


def test_the_rate_is_that_of_the_recent_parts() -> None:
    """A night's pause after the first ten parts does not make the rest look slow."""
    times = [float(i) for i in range(10)] + [36_000.0 + i for i in range(100)]
    assert pace(times, 210, 36_100.0).startswith("1.00 shards/s, 1 min 40 s left")
    assert pace([5.0], 10, 6.0) == ""


def test_of_many_parts_only_a_sample_of_footers_is_read(working: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.report import parts

    monkeypatch.setattr(parts, "FOOTERS", 2)
    found = parts.listed(working.fs, f"{working.folder}/parts")
    lines = parts.particulars(working.fs, f"{working.folder}/parts", found)
    assert "2 of 6 parts looked at" in lines[0]
