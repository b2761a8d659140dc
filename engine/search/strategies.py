"""The three modes of a search as one idea: cohorts of trials, each a pure function of the seed and of the records of the cohort before.

runs         one cohort; a trial is a whole run
greedy       a cohort a generation; all students learn from the best student of the cohort before
population   a cohort a generation; a trial is a member. The worst copy the best (exploit) and change their settings (explore)
             (Jaderberg et al.: Population Based Training of Neural Networks, 2017)

Trial 0 is the config as it stands, or what won before: a search never ends below where it started, as far as validation can tell.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.search.job import SearchJobSettings
from engine.search.space import Values, draw, perturb
from engine.search.suggest import suggest
from engine.search.trials import Trial, TrialRecord, best
from engine.settings.block import get_value
from engine.settings.search import PopulationSettings


@dataclass(frozen=True)
class Member:
    """A place in the next cohort: whose student teaches it, and whether it explores."""

    parent: int
    explores: bool


def cohorts(settings: SearchJobSettings) -> int:
    """How many cohorts the search has."""
    return 1 if settings.search.mode == "runs" else settings.recipe.num_generations


def propose(
    settings: SearchJobSettings, cohort: int, earlier: list[TrialRecord], number: int, history: list[TrialRecord]
) -> Trial:
    """Trial `number` of `cohort`. `earlier`: all records of the cohort before; `history`: records of this one, for a sampler that learns.

    Raises ValueError when no trial of the cohort before has a score to go on from.
    """
    search = settings.search
    if search.mode == "population" and cohort > 1:
        return _next_member(settings, cohort, number, earlier)
    winner = best(earlier)
    if cohort > 1 and winner is None:
        raise ValueError(f"no trial of generation {cohort - 1} came to a score: look at their errors above")
    own = winner.trial.values if winner is not None else start_values(settings)
    seed = [search.seed, cohort, number]
    if number == 0:
        values = own
    elif search.sampler == "optuna":
        values = suggest(search.space, seed, history)
    else:
        values = draw(search.space, seed, number - 1)
    if search.mode == "runs":
        return Trial(cohort, number, values)
    before = tuple(winner.trial.schedule or ()) if winner is not None else ()
    return Trial(cohort, number, values, before, winner.trial.number if winner is not None else None)


def _next_member(settings: SearchJobSettings, cohort: int, number: int, earlier: list[TrialRecord]) -> Trial:
    search = settings.search
    member = exploit(earlier, search.population)[number]
    parent = next(record.trial for record in earlier if record.trial.number == member.parent)
    values = parent.values
    if member.explores:
        rng = np.random.default_rng([search.seed, cohort, number])
        values = perturb(search.space, values, rng, search.population.step, search.population.resample)
    return Trial(cohort, number, values, tuple(parent.schedule or ()), parent.number)


def exploit(earlier: list[TrialRecord], population: PopulationSettings) -> list[Member]:
    """Who teaches each member of the next cohort: its own student, or, for the worst and those that failed, one of the best, in turn."""
    ranked = sorted(
        (record for record in earlier if record.value is not None),
        key=lambda record: (-(record.value or 0.0), record.trial.number),
    )
    if not ranked:
        raise ValueError("no member of the population came to a score: look at their errors above")
    count = min(max(1, int(population.quantile * len(earlier))), len(earlier) // 2)
    top = [record.trial.number for record in ranked[:count]]
    failed = [record.trial.number for record in earlier if record.value is None]
    worst = [record.trial.number for record in ranked[max(count, len(ranked) - count + len(failed)) :]] + failed
    copies = {number: top[index % len(top)] for index, number in enumerate(worst)}
    numbers = sorted(record.trial.number for record in earlier)
    return [Member(copies.get(number, number), number in copies) for number in numbers]


def start_values(settings: SearchJobSettings) -> Values:
    """The searched settings as the config has them; those that it does not set are left to their defaults."""
    tree: dict[str, Any] = settings.base().model_dump(mode="json")
    tree["models"]["student"] = tree["models"]["student"] or tree["models"]["teacher"]
    found = {}
    for path in settings.search.space:
        if (value := get_value(tree, path)) is not None:
            found[path] = value
    return found
