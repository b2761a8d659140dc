"""The verbs of a recipe's setup: what they hand on where a run has no pool."""

from typing import Any

import pytest

from engine.recipes import setup as module
from engine.recipes.setup import Setup
from engine.settings import SelectSettings


@pytest.mark.parametrize(("on", "known"), [("labelled", ["validation"]), ("pool", ["labelled", "validation"])])
def test_a_selection_looks_around_in_what_was_predicted(
    monkeypatch: pytest.MonkeyPatch, on: str, known: list[str]
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(module, "select", lambda *arguments: seen.append(arguments[-1]))
    setup: Any = Setup.__new__(Setup)
    setup.run, setup.classes = None, None
    setup.known = {"labelled": "the labelled", "validation": "the validation"}
    setup.collections = {**setup.known, **({"pool": "the pool"} if on == "pool" else {})}
    setup.select("label", None, SelectSettings(), on=on)
    assert seen[0].pool == f"the {on}"
    assert list(seen[0].known) == known
