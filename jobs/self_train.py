"""Self-training: teacher -> predictions -> pseudo-labels -> student, for several generations of durable steps.

    python -m jobs.self_train jobs/configs/folders.yaml data.labelled=/photos/labelled data.pool=/photos/pool

After a kill, run the same command again to resume. Steps that are finished are never computed again.
"""

import ray

from engine.ground.progress import log_event
from engine.ground.record import json_text
from engine.ground.resources import node_cpus
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.plan import resource_plan
from engine.recipes.context import RecipeContext
from engine.recipes.registry import SelfTrainSettings, run_recipe
from engine.report import table
from engine.report.publish import publish
from engine.settings.block import load
from jobs import cli


def main() -> None:
    arguments = cli.parser("self_train", __doc__, SelfTrainSettings).parse_args()
    self_train(load(SelfTrainSettings, arguments.config, arguments.overrides))


def self_train(settings: SelfTrainSettings) -> dict[str, object]:
    """Run the recipe of the settings; returns the contents of metrics.json."""
    run = Run(Store(settings.store), settings.run, settings.cluster)
    run.save_settings(settings)
    with connect(settings.cluster):
        resources, nodes = ray.cluster_resources(), node_cpus()
        resource_plan.print_plan(resource_plan.plan_resources(settings, resources, nodes), resources, nodes)
        result = run_recipe(RecipeContext(run, settings))
    report = table.metrics(run.store, result)
    written = run.put("metrics.json", json_text(report, indent=1).encode())
    table.show(report)
    publish(run, settings.report)
    log_event("done", f"results: {written}. Next: python -m jobs.status {settings.store} {settings.run}")
    return report


if __name__ == "__main__":
    cli.run(main)
