"""The lists of names that settings are checked against are those of what bears the names."""

import json
from pathlib import Path

import pytest
import timm

from engine.cluster.submission import Submission
from engine.fit.losses import LOSSES
from engine.fit.objective import find_objective
from engine.ground.prune import find_unused_steps
from engine.ground.record import StepRecord
from engine.ground.run import Run, pointers
from engine.ground.steps import Store
from engine.images.corruptions import FAMILIES
from engine.models import cifar as _registers_networks  # noqa: F401
from engine.search.trials import Trial, run_name
from engine.settings import names
from engine.settings.block import parse
from engine.settings.cluster import ClusterSettings
from engine.settings.jobs import PredictJobSettings
from engine.settings.names import check_file_name, check_or_class
from engine.tasks.registry import TASKS


def test_the_lists_are_those_of_the_rooms_above() -> None:
    assert set(names.LOSSES) == set(LOSSES)
    assert list(names.CORRUPTIONS) == list(FAMILIES)
    assert set(names.TASKS) == set(TASKS)
    assert set(names.OWN_NETWORKS) == set(timm.list_models(module="cifar"))
    assert all(find_objective(name) for name in names.OBJECTIVES)


@pytest.mark.parametrize("name", ["superwised", "a b:C", "module:", ":Class", "os.system('x'):y"])
def test_what_is_neither_a_name_nor_a_class_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown.*package\.module:Class"):
        check_or_class("objective", name, names.OBJECTIVES)


def test_prune_keeps_the_steps_of_a_run_whose_name_was_once_accepted(tmp_path: Path) -> None:
    store = Store(str(tmp_path)).open()
    step = store.step(StepRecord("select", 1))
    step.begin()
    step.commit([], {}, 0)
    nested = tmp_path / "runs" / "a" / "b" / "steps" / "select.json"
    nested.parent.mkdir(parents=True)
    assert find_unused_steps(store) == [step.name]
    nested.write_text(json.dumps({"label": "select", "step": step.name, "record": {}, "order": 0}))
    assert find_unused_steps(store) == []


BAD = [
    "",
    " ",
    ".",
    "..",
    "a/b",
    "/abs",
    "a\\b",
    "a\nb",
    "\x1b[31mred",
    "-rf",
    ".hidden",
    "a?b",
    "a%2Fb",
    "a#b",
    "ü",
    "x" * 121,
    "a\x00",
]


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_name_is_refused_everywhere(name: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    tree = {"model": "fit-1", "images": {"uri": "u"}, "run": name}
    trial = Trial(1, 0, {})
    ways = [
        lambda: parse(PredictJobSettings, tree, "config"),
        lambda: Run(store, name, ClusterSettings()),
        lambda: Run(store, "r", ClusterSettings()).find_or_run_step(
            name, StepRecord("v", 1), lambda step: step.commit([], {}, 0)
        ),
        lambda: pointers(store, name),
        lambda: run_name(name, trial),
        lambda: Submission("predict", name, [], ".", []),
        lambda: check_file_name("run", name),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=r"is no name|characters, at most|must not"):
            way()
    assert not [path for path in tmp_path.rglob("*") if path.name not in ("store.json", "steps", "runs")]


@pytest.mark.parametrize("name", ["demo", "search.1-3", "2026-11-27_night", "_x", "x" * 120])
def test_usual_names_pass(name: str, tmp_path: Path) -> None:
    assert Run(Store(str(tmp_path)), name, ClusterSettings()).name == name
    assert check_file_name("step title", "predict generation 1", blanks=True)


def test_a_refused_name_comes_with_one_that_works() -> None:
    with pytest.raises(ValueError, match=r"e\.g\. a-b$"):
        check_file_name("run", "a/b")
