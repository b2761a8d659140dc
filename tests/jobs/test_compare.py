"""Arms on digits: the table, what an arm added later reuses, and a second run that computes nothing."""

import json
import re
from pathlib import Path

import pytest

from jobs.compare import compare
from tests.small_run import small_settings

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def test_an_arm_added_later_reuses_existing_steps(
    digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    arms = {"labels": small_settings(digits, store, recipe="supervised")}
    compare(arms, store, "c", [0])
    arms["students"] = small_settings(digits, store)
    capfd.readouterr()
    table = compare(arms, store, "c", [0], budget=40 * (32 + 48))
    output = capfd.readouterr().out
    assert len(re.findall(r"done in .* s \(fit-", output)) == 1, "the teacher is the supervised arm's model"
    assert [row["arm"] for row in table] == ["labels", "students"]
    assert [row["trained"] for row in table] == [40 * 32, 40 * (32 + 48)]
    assert [row["labelled"] for row in table] == [0, 1097]
    assert table[1]["difference"] is not None
    assert table[1]["pseudo_correct"] > 0.4
    folder = Path(store) / "compare" / "c"
    assert json.loads((folder / "compare.json").read_text())["arms"] == json.loads(json.dumps(table))
    assert (folder / "compare.svg").read_text().startswith("<svg")
    assert compare(arms, store, "c", [0]) is not None
    assert " done in " not in capfd.readouterr().out
