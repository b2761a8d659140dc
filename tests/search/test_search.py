"""A whole search on a made-up objective, without a cluster: killed and restored at every point it finds what an undisturbed one finds."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.ground.run import Run
from engine.ground.steps import Store
from engine.recipes.registry import SelfTrainSettings
from engine.search.allocation import TrialAllocation
from engine.search.cohort import Cohort
from engine.search.job import SearchJobSettings
from engine.search.search import SearchResult, check_search, run_search
from engine.search.strategies import propose
from engine.search.trials import Trial, TrialRecord, TrialRecords, TrialReport
from engine.settings.cluster import ClusterSettings
from engine.settings.search import HalvingSettings
from tests.search.making import SPACE, record, searched

SHARE = TrialAllocation(1, ClusterSettings(), "one at a time")


def accuracy(trial: Trial, generation: int) -> float:
    """The best threshold is 0.6 in the first generation and 0.4 in the second."""
    values = trial.values if trial.schedule is None else trial.schedule[generation - 1]
    return 0.9 - abs(values["select.threshold"] - (0.6, 0.4)[generation - 1]) / 2 - 0.01 * (generation == 1)


class Tuner:
    """Stands in for Tune: one trial after the other; the `dies`-th report is the last thing that happens."""

    def __init__(self, dies: int | None = None) -> None:
        self.left, self.worked = dies, list[str]()

    def __call__(
        self, search: Run, cohort: Cohort, base: SelfTrainSettings, share: TrialAllocation
    ) -> list[TrialRecord]:
        assert share.concurrent == 1
        records = TrialRecords(search)
        while (trial := cohort.next()) is not None:
            record = records.get(trial.name)
            for generation in range(1, len(trial.schedule or [0] * base.recipe.num_generations) + 1):
                if self.left == 0:
                    raise KeyboardInterrupt
                self.left = None if self.left is None else self.left - 1
                self.worked.append(f"{trial.name} generation {generation}")
                report = TrialReport(generation, accuracy(trial, generation), 0.0, 1.0)
                record = records.put(record.after(report))
                if not cohort.reported(trial.name, report).goes_on:
                    break
            else:
                records.put(replace(record, state="finished"))
        return cohort.ended({})


def go(settings: SearchJobSettings, tuner: Tuner) -> SearchResult:
    return run_search(Run(Store(settings.store), settings.run, settings.cluster), settings, SHARE, tuner)


@pytest.mark.parametrize("mode", ["runs", "greedy", "population"])
def test_killed_anywhere_and_restored_it_finds_the_same_and_repeats_no_finished_trial(
    tmp_path: Path, mode: str
) -> None:
    search: dict[str, Any] = {"mode": mode, "trials": 5}
    whole = Tuner()
    undisturbed = go(searched(tmp_path / "whole", search), whole)
    for dies in range(1, len(whole.worked)):
        settings = searched(tmp_path / f"broken{dies}", search)
        first = Tuner(dies)
        with pytest.raises(KeyboardInterrupt):
            go(settings, first)
        run = Run(Store(settings.store), settings.run, settings.cluster)
        over = {record.trial.name for record in TrialRecords(run).all() if record.over}
        second = Tuner()
        found = go(settings, second)
        assert found.records == undisturbed.records
        assert not [work for work in second.worked if work.split()[0] in over], "a finished trial ran again"
        third = Tuner()
        assert go(settings, third).winner == undisturbed.winner
        assert third.worked == []


def test_greedy_finds_a_schedule_that_no_single_threshold_can_match(tmp_path: Path) -> None:
    found = go(searched(tmp_path, {"trials": 40}), Tuner())
    thresholds = [values["select.threshold"] for values in found.winner.trial.schedule or []]
    assert thresholds == [pytest.approx(0.6, abs=0.05), pytest.approx(0.4, abs=0.05)]
    assert found.settings.schedule == found.winner.trial.schedule
    assert (found.settings.run, found.settings.recipe.num_generations) == ("s-best", 2)


def test_population_moves_towards_the_better_settings(tmp_path: Path) -> None:
    search = {"mode": "population", "trials": 8, "population": {"resample": 0}}
    found = go(searched(tmp_path, search), Tuner())
    second = [record for record in found.records if record.trial.cohort == 2]
    assert {record.trial.parent for record in second} != set(range(8)), "nobody copied anybody"
    assert found.winner.trial.cohort == 2


def test_runs_are_stopped_at_generation_boundaries_and_the_best_is_not(tmp_path: Path) -> None:
    found = go(searched(tmp_path, {"mode": "runs", "trials": 12}), Tuner())
    stopped = [record for record in found.records if record.state == "stopped"]
    assert stopped
    assert all(len(record.reports) == 1 for record in stopped)
    finished = [record for record in found.records if record.state == "finished"]
    assert found.winner in finished
    assert all(len(record.reports) == 2 for record in finished)


def test_a_trial_that_comes_by_again_keeps_what_it_reported_and_is_not_judged_again(tmp_path: Path) -> None:
    records = TrialRecords(Run(Store(str(tmp_path)), "s", ClusterSettings()))
    ahead, behind = (records.put(record(1, n, *a, state="running")) for n, a in enumerate([(0.5, 0.9), (0.4,)]))
    others = [record(1, n, 0.8, 0.7) for n in (2, 3, 4)]
    cohort = Cohort(records, [ahead, behind, *others], 5, partial(propose, searched(), 1, []), HalvingSettings(), 3)
    assert [cohort.next(), cohort.next()] == [ahead.trial, behind.trial]
    assert cohort.reported("1-000", ahead.reports[0]).goes_on, "it had gone on after this generation"
    assert cohort.known["1-000"].reports == ahead.reports
    assert cohort.reported("1-000", ahead.reports[1]).goes_on
    assert not cohort.reported("1-001", behind.reports[0]).goes_on
    assert records.get("1-001").state == "stopped"


def test_more_trials_go_on_from_those_that_are_known(tmp_path: Path) -> None:
    go(searched(tmp_path, {"mode": "runs", "trials": 3}), Tuner())
    more = Tuner()
    assert len(go(searched(tmp_path, {"mode": "runs", "trials": 5}), more).records) == 5
    assert {work.split()[0] for work in more.worked} == {"1-003", "1-004"}


def test_the_records_of_two_searches_are_not_mixed(tmp_path: Path) -> None:
    go(searched(tmp_path), Tuner())
    other = {"space": {**SPACE, "select.threshold": {"uniform": [0.2, 0.9]}}}
    with pytest.raises(ValueError, match=r"search\.space\.select\.threshold\.uniform.*set run to a new name"):
        go(searched(tmp_path, other), Tuner())


def test_failed_trials_are_told_and_tried_again_by_the_next_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def dies(search: Run, cohort: Cohort, base: SelfTrainSettings, share: TrialAllocation) -> list[TrialRecord]:  # noqa: ARG001
        while cohort.next() is not None:
            pass
        return cohort.ended({"1-000": "out of memory"})

    settings = searched(tmp_path, {"mode": "runs"})
    run = Run(Store(settings.store), settings.run, settings.cluster)
    with pytest.raises(RuntimeError, match="the first says: out of memory"):
        run_search(run, settings, SHARE, dies)
    assert "trial 1-000" in capsys.readouterr().out
    assert {record.state for record in go(settings, Tuner()).records} <= {"finished", "stopped"}


def test_optuna_learns_and_is_a_function_of_the_records(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is an extra: pip install '.[search]'")
    search = {"mode": "runs", "trials": 30, "sampler": "optuna", "halving": None}
    first, second = (go(searched(tmp_path / name, search, generations=1), Tuner()) for name in "ab")
    assert first.records == second.records
    late = [abs(record.trial.values["select.threshold"] - 0.6) for record in first.records[20:]]
    assert sum(late) / len(late) < 0.12, "random draws are 0.2 away"


def test_optuna_that_is_missing_is_told_before_the_cluster_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match="is not installed"):
        check_search(searched(search={"mode": "runs", "sampler": "optuna"}))
