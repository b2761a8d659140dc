"""A whole search: cohort after cohort, until the best trial is known; started again, it goes on where it was."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.record import canonical, differences, json_text
from engine.ground.run import Run
from engine.recipes.registry import SelfTrainSettings
from engine.search.allocation import TrialAllocation
from engine.search.cohort import Cohort
from engine.search.job import SearchJobSettings
from engine.search.space import check
from engine.search.strategies import cohorts, propose
from engine.search.suggest import library
from engine.search.trials import TrialRecord, TrialRecords, best, settings_of

RunCohort = Callable[[Run, Cohort, SelfTrainSettings, TrialAllocation], list[TrialRecord]]


@dataclass(frozen=True)
class SearchResult:
    """All records, and the settings of the best as a run of its own."""

    records: list[TrialRecord]
    winner: TrialRecord
    settings: SelfTrainSettings


def check_search(settings: SearchJobSettings) -> None:
    """Refuse what cannot be searched, before the cluster is used. Raises ValueError."""
    if settings.search.sampler == "optuna":
        library()
    tree = settings.base().model_dump(mode="json", exclude_unset=True)
    check(settings.search.space, tree, schedule=settings.search.mode != "runs")


def run_search(run: Run, settings: SearchJobSettings, share: TrialAllocation, run_cohort: RunCohort) -> SearchResult:
    """Run what is missing of the search and return the best. `run_cohort` is `tuner.run_cohort`, or a stand-in of a test.

    Raises ValueError when the run's records are of another search, RuntimeError when no trial came to a score.
    """
    _same_search(run, settings)
    records, base = TrialRecords(run), settings.base()
    earlier: list[TrialRecord] = []
    for number in range(1, cohorts(settings) + 1):
        found = [record for record in records.all() if record.trial.cohort == number]
        proposals = partial(propose, settings, number, earlier)
        halving = settings.search.halving if settings.search.mode == "runs" else None
        cohort = Cohort(records, found, settings.search.trials, proposals, halving, settings.recipe.num_generations)
        over = settings.search.trials - len(cohort.waiting)
        log_event(f"cohort {number}", f"{settings.search.trials} trials, {over} of them over before")
        earlier = run_cohort(run, cohort, base, share)
        if (leader := best(earlier)) is None:
            raise RuntimeError(f"no trial came to a score; the first says: {earlier[0].error}")
        log_event(f"cohort {number}", f"best: trial {leader.trial.name} with {leader.value:.2%} on validation images")
    winner = best(records.all())
    assert winner is not None, "the last cohort has a best"
    return SearchResult(records.all(), winner, settings_of(base, winner.trial, f"{run.name}-best"))


def _same_search(run: Run, settings: SearchJobSettings) -> None:
    """Remember what is searched; refuse to mix the records of two searches."""
    adjustable = {"concurrent", "trials"} if settings.search.mode == "runs" else {"concurrent"}
    what = settings.model_dump(mode="json", exclude={"cluster": True, "store": True, "search": adjustable})
    path = f"{run.folder}/search.json"
    if not storage.exists(run.store.fs, path):
        run.put("search.json", json_text(what, indent=1, sort_keys=True).encode())
        return
    before = json.loads(storage.get(run.store.fs, path))
    if changed := differences(before, json.loads(canonical(what))):
        raise ValueError(f"the run {run.name!r} is of another search ({'; '.join(changed)}): set run to a new name")
