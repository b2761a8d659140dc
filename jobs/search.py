"""Search thresholds, quotas and noise, across generations: which settings to train with, and how they change from generation to generation.

    python -m jobs.search jobs/configs/search.yaml data.labelled=/photos/labelled data.pool=/photos/pool data.validation=/photos/validation

The config is one of the main job with a `search` block: its mode (runs, greedy or population), its trials and its space. Trials share every step that
they have in common. Kill it at any moment and run the same command again: no finished trial runs again. Test images are looked at once, for
the winner.
"""

import ray

from engine.config import load
from engine.progress import say
from engine.run import Run
from engine.search.cohorts import cohorts
from engine.search.search import Found, check_search, run_search
from engine.search.share import share
from engine.search.tuner import run_cohort
from engine.search_settings import SearchJobSettings
from engine.session import connect
from engine.steps import Store
from jobs import command


def main() -> None:
    arguments = command.parser("search", __doc__).parse_args()
    search(load(SearchJobSettings, arguments.config, arguments.overrides))


def search(settings: SearchJobSettings) -> Found:
    """Run the search to its end, train and test nothing but the winner, and write what was found."""
    check_search(settings)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    with connect(settings.cluster):
        shared = share(ray.cluster_resources(), settings.cluster, settings.search.trials, settings.search.concurrent)
        say(
            "search",
            f"mode {settings.search.mode}, {cohorts(settings)} x {settings.search.trials} trials; {shared.why}",
        )
        return run_search(run, settings, shared, run_cohort)


if __name__ == "__main__":
    command.run(main)
