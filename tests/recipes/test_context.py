"""The verbs of a recipe's setup: what they hand on where a run has no pool."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from engine.images.collection import Collection
from engine.labels.classes import ClassList
from engine.recipes import context as module
from engine.recipes.context import RecipeContext
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings
from engine.tasks.classify import Classify
from engine.tasks.multilabel import Multilabel
from engine.tasks.task import Task
from tests.images.making import folder, manifest


@pytest.mark.parametrize(("on", "known"), [("labelled", ["validation"]), ("pool", ["labelled", "validation"])])
def test_a_selection_looks_around_in_what_was_predicted(
    monkeypatch: pytest.MonkeyPatch, on: str, known: list[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module, "select", lambda *arguments: seen.append(arguments[-1].around))
    setup: Any = RecipeContext.__new__(RecipeContext)
    setup.run, setup.classes = None, None
    setup.known = {"labelled": "the labelled", "validation": "the validation"}
    setup.collections = {**setup.known, **({"pool": "the pool"} if on == "pool" else {})}
    setup.select("label", None, SelectSettings(), on=on)
    assert seen[0].pool == f"the {on}"
    assert list(seen[0].known) == known


@pytest.mark.parametrize(("fitted", "expected"), [({"temperature": 2.5}, 2.5), ({}, 1.0)])
def test_labelled_images_are_scored_at_the_temperature_of_the_pool(
    monkeypatch: pytest.MonkeyPatch, fitted: dict[str, float], expected: float
) -> None:
    """AdaMatch's cut compares the two: predict.calibrate fitted a temperature for the pool, and the labelled images must have the same."""
    scored: list[PredictSettings] = []
    monkeypatch.setattr(module, "evaluate", lambda *arguments: scored.append(arguments[-1]))
    monkeypatch.setattr(module, "select", lambda *_: None)
    monkeypatch.setattr(module, "read_output", lambda *_: "the teacher")
    setup: Any = RecipeContext.__new__(RecipeContext)
    setup.classes, setup.task, setup.known = None, None, {}
    setup.collections = {"labelled": "the labelled", "pool": "the pool"}
    record = {"settings": {"top_p": 4, **fitted}}
    setup.run = SimpleNamespace(store=SimpleNamespace(step_json=lambda *_: record))
    setup.settings = SimpleNamespace(
        predict=PredictSettings(calibrate=True), data=SimpleNamespace(max_rejected_percent=1.0)
    )
    predictions: Any = SimpleNamespace(step="predict-1", summary={"model": "fit-1"})
    setup.select("label", predictions, SelectSettings(cut="adamatch"))
    assert [one.temperature for one in scored] == [expected]


@pytest.mark.parametrize("task", [Classify, Multilabel])
def test_labels_of_a_pool_that_are_no_classes_are_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: type[Task]
) -> None:
    """Month folders, captions: no report dies of them, and what is known is scored."""
    folder(tmp_path / "pool", ["2021-05/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/d.jpg", "e.jpg"])
    setup: Any = RecipeContext.__new__(RecipeContext)
    setup.collections = {"pool": Collection("pool", manifest(tmp_path / "pool", tmp_path / "store"))}
    setup.classes = ClassList(("cat", "dog"))
    setup.task = task(setup.classes)
    setup.run = SimpleNamespace(store=SimpleNamespace(fs=None))
    setup.count_unknown()
    assert "1 of 4 labels are none of the 2 classes (first: '2021-05'): unknown" in capsys.readouterr().out

    def quality(rows: list[int], classes: list[int]) -> dict[str, Any]:
        picked = pa.table(
            {"shard": pa.array([0] * len(rows), pa.int32()), "row": pa.array(rows, pa.int32()), "class": classes}
        )
        setup.arranged = lambda *_: SimpleNamespace(ranges=[range(1)], tables=lambda _: [picked])
        pseudo = SimpleNamespace(step="select-1", parts=lambda _: [SimpleNamespace(rows=len(rows))])
        found: dict[str, Any] = setup.pseudo_quality("gather", pseudo)
        return found

    about = {"step": "select-1", "on": "pool"}
    assert quality([4, 3, 0, 1], [0, 1, 1, 1]) == {"kept": 4, "correct": 0.5, **about}
    assert quality([0, 4], [0, 0]) == {"kept": 2, "correct": None, **about}
