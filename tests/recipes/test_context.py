"""The verbs of a recipe's setup: what they hand on where a run has no pool."""

from types import SimpleNamespace
from typing import Any

import pytest

from engine.recipes import context as module
from engine.recipes.context import RecipeContext
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings


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
