"""One trial: a run of the main job's recipe that reports after each generation. It never looks at test images."""

import traceback
from collections.abc import Callable
from dataclasses import replace

from engine.ground.progress import log_event
from engine.ground.run import Run
from engine.metrics.score import Score
from engine.recipes.context import RecipeContext
from engine.recipes.registry import SelfTrainSettings, train
from engine.search.trials import TrialRecord, TrialRecords, TrialReport, run_name, settings_of
from engine.settings.cluster import ClusterSettings


def run_trial(
    search: Run, name: str, base: SelfTrainSettings, cluster: ClusterSettings, tell: Callable[[TrialReport], None]
) -> TrialRecord:
    """Run the trial called `name` to its end, or to where its process is ended; what it comes to is in its record.

    `tell` is called after each generation, when the record holds it; the next generation begins when it returns. An error is the record's
    state, not an exception: only a process that dies is tried again.
    """
    records = TrialRecords(search)
    record = records.get(name)

    def report(generation: int, score: Score | None) -> None:
        nonlocal record
        assert score is not None, "a search has validation images"
        seen = TrialReport(generation, score.value, score.low, score.high)
        record = records.put(replace(record.after(seen), state="running", error=""))
        tell(seen)

    run = Run(search.store, run_name(search.name, record.trial), cluster, on_generation=report)
    try:
        settings = settings_of(base, record.trial, run.name)
        run.save_settings(settings)
        generations = train(RecipeContext(run, settings))
        if not record.reports:  # nothing was selected, or there is no generation: the teacher is what there is to use
            last = generations[-1].validation
            report(0, last.score if last is not None else None)
    except Exception as error:
        log_event(run.name, traceback.format_exc())
        return records.put(replace(record, state="failed", error=f"{type(error).__name__}: {error}"))
    return records.put(replace(record, state="finished"))
