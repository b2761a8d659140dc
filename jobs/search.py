"""Search settings (thresholds, quotas, noise) and their schedule over generations.

    python -m jobs.search jobs/configs/search.yaml data.labelled=/photos/labelled data.pool=/photos/pool data.validation=/photos/validation

The config is one of jobs.self_train with a `search` block: mode (runs, greedy or population), trials and space. Trials share common steps. After a
kill, run the same command again: finished trials are not repeated. Test images are evaluated once, for the winner.
"""

import ray

from engine.ground.progress import log_event
from engine.ground.record import json_text
from engine.ground.resources import node_cpus
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.plan import resource_plan
from engine.report import search_page, search_table
from engine.search.allocation import allocate_trials
from engine.search.importance import importances
from engine.search.job import SearchJobSettings
from engine.search.savings import savings, steps_used
from engine.search.search import SearchResult, check_search, run_search
from engine.search.strategies import cohorts
from engine.search.tuner import run_cohort
from engine.settings.block import dump, load
from jobs import cli
from jobs.self_train import self_train


def main() -> None:
    arguments = cli.parser("search", __doc__, SearchJobSettings).parse_args()
    search(load(SearchJobSettings, arguments.config, arguments.overrides))


def search(settings: SearchJobSettings) -> SearchResult:
    """Run the search, write its result, and train and test the winner."""
    check_search(settings)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    with connect(settings.cluster):
        resources, nodes = ray.cluster_resources(), node_cpus()
        shared = allocate_trials(resources, settings.cluster, settings.search.trials, settings.search.concurrent, nodes)
        log_event(
            "search",
            f"mode {settings.search.mode}, {cohorts(settings)} x {settings.search.trials} trials; {shared.why}",
        )
        trial = settings.base().model_copy(update={"cluster": shared.cluster})
        resource_plan.print_plan(resource_plan.plan_resources(trial, resources, nodes), resources, nodes)
        found = run_search(run, settings, shared, run_cohort)
        write(run, settings, found)
        log_event("winner", "training, and the only evaluation on test images")
        self_train(found.settings)
    return found


def write(run: Run, settings: SearchJobSettings, found: SearchResult) -> None:
    """Write best.yaml, search.html and result.json into the folder of the run, and print the tables."""
    best = dump(found.settings)
    important = importances(settings.search.space, found.records)
    saved = savings(steps_used(run.store, run.name, found.records))
    search_table.show(found, important, saved)
    page = search_page.page(f"Search {run.name}", found, settings.search.space, important, saved, best)
    run.put("result.json", json_text(search_table.plain(found, important, saved), indent=1).encode())
    log_event("search", f"plots: {run.put('search.html', page.encode())}")
    log_event("search", f"best settings, for jobs.self_train: {run.put('best.yaml', best.encode())}")


if __name__ == "__main__":
    cli.run(main)
