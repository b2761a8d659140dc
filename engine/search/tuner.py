"""Cohorts on Ray Tune: Tune starts the trials, watches their processes and stops those that halving gives up.

What is tried and what was seen stands in the search's records alone: a search that was killed is restored by starting it again, on any cluster, and
Tune's own files are removed when a cohort is over.
"""

import os
from contextlib import suppress
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from engine.ground import session
from engine.ground.run import Run
from engine.recipes.registry import SelfTrainSettings
from engine.search.allocation import TRIAL_BYTES, TrialAllocation
from engine.search.cohort import Cohort
from engine.search.trial import run_trial
from engine.search.trials import TrialRecord, TrialReport
from engine.settings.cluster import ClusterSettings

TRIAL = "trial"
"""The one key of a Tune trial's config: a pointer to its record."""


def run_cohort(search: Run, cohort: Cohort, base: SelfTrainSettings, share: TrialAllocation) -> list[TrialRecord]:
    """Run the cohort's trials to their ends, `share.concurrent` at once. Returns their records."""
    if not cohort.waiting:
        return cohort.ended({})
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the records say it all
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the search, not just this cohort
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    trainable = tune.with_parameters(tune_trial, search=search, base=base, cluster=share.cluster)
    folder = f"{search.folder}/tune"
    tuner = tune.Tuner(
        # no CPU: a trial's process leads, and leaves the CPUs to its steps
        tune.with_resources(trainable, {"memory": TRIAL_BYTES}),
        tune_config=tune.TuneConfig(
            search_alg=Proposals(cohort),
            scheduler=Verdicts(cohort),
            num_samples=len(cohort.waiting),
            max_concurrent_trials=share.concurrent,
            reuse_actors=False,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=search.folder,
            storage_filesystem=search.store.fs,
            failure_config=tune.FailureConfig(max_failures=share.cluster.retries.max_failures),
            verbose=0,
        ),
    )
    results = tuner.fit()
    ended = [results[index] for index in range(len(results))]
    errors = {
        str(one.config[TRIAL]): f"{type(one.error).__name__}: {one.error}" for one in ended if one.error and one.config
    }
    with suppress(FileNotFoundError):
        search.store.fs.delete_dir(folder)
    return cohort.ended(errors)


def tune_trial(config: dict[str, Any], search: Run, base: SelfTrainSettings, cluster: ClusterSettings) -> None:
    """A trial as Tune starts it: in a process of its own, which waits at the end of each generation until Tune lets it go on."""
    session.quieten_ray_loggers()
    run_trial(search, config[TRIAL], base, cluster, lambda report: tune.report(vars(report)))


class Proposals(Searcher):
    """Hands Tune the cohort's next trial."""

    def __init__(self, cohort: Cohort) -> None:
        super().__init__()
        self.cohort = cohort

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # noqa: ARG002
        trial = self.cohort.next()
        return Searcher.FINISHED if trial is None else {TRIAL: trial.name}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to learn here: the records tell the sampler."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the records are in the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class Verdicts(FIFOScheduler):
    """Tells Tune what the cohort decides after each generation of a trial."""

    def __init__(self, cohort: Cohort) -> None:
        super().__init__()
        self.cohort = cohort

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        report = TrialReport(*(result[key] for key in ("generation", "value", "low", "high")))
        decision = self.cohort.reported(trial.config[TRIAL], report)
        return TrialScheduler.CONTINUE if decision.goes_on else TrialScheduler.STOP
