"""Settings and records for the tests of a search."""

from pathlib import Path
from typing import Any

from engine.search.job import SearchJobSettings
from engine.search.trials import Trial, TrialRecord, TrialReport
from engine.settings.block import parse
from tests.small_run import WITHOUT_GENERATIONS, run_tree

SPACE = {
    "select.threshold": {"uniform": [0.1, 0.9]},
    "fits.student.noise.pseudo.aa_magnitude": {"integer": [0, 10]},
}


def searched(store: str | Path = "store", search: dict[str, Any] | None = None, **changed: Any) -> SearchJobSettings:
    """A search of the given mode over two settings and two generations."""
    fit = {"steps": 1, "batch": {"labelled": 8}}
    flat = {
        "run": "s",
        "store": str(store),
        **({} if changed.get("recipe") in WITHOUT_GENERATIONS else {"generations": 2}),
        "data": {"labelled": "l", "pool": "p", "validation": "v", "test": "t"},
        "teacher_model": {"model": "resnet18"},
        "teacher": fit,
        "student": {**fit, "batch": {"labelled": 8, "pseudo": 8}, "noise": {"pseudo": {"aa_magnitude": 3}}},
        "search": {"mode": "greedy", "trials": 4, "space": SPACE, **(search or {})},
        **changed,
    }
    return parse(SearchJobSettings, run_tree(**flat), "the test's search")


def record(cohort: int, number: int, *accuracies: float, **changed: Any) -> TrialRecord:
    """A finished trial with these accuracies after generations 1, 2, …"""
    reports = tuple(TrialReport(g, a, a - 0.01, a + 0.01) for g, a in enumerate(accuracies, 1))
    trial = Trial(cohort, number, changed.pop("values", {}), changed.pop("before", None), changed.pop("parent", None))
    return TrialRecord(trial, **{"state": "finished", "reports": reports, **changed})
