"""Estimate time, cost, bytes, memory and bottleneck of each step of labelling a pool, before it runs.

    python -m jobs.plan jobs/configs/plan.yaml model=/models/teacher images.uri=/photos/pool plan.price_node_hour=3.5

A sample is predicted on the connected cluster; the rest is arithmetic, for this cluster and for the one that plan.cluster describes. Fits are not
estimated: their length is a setting, and their log shows the rate within a minute.
"""

from typing import Any

import ray
from rich.table import Table

from engine.ground.progress import format_duration, log_event
from engine.ground.resources import predict_actors
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.models.imported import find_model
from engine.plan.estimate import (
    ClusterCapacity,
    Estimate,
    MeasuredCosts,
    PoolTotals,
    estimate,
    format_bytes,
)
from engine.plan.measure import measure
from engine.report.console import Console
from engine.settings.block import load
from engine.settings.jobs import PlanJobSettings, PlanSettings
from jobs import cli


def main() -> None:
    arguments = cli.parser("plan", __doc__, PlanJobSettings).parse_args()
    settings = load(PlanJobSettings, arguments.config, arguments.overrides)
    run = Run(Store(settings.store), settings.run, settings.cluster)
    model = find_model(run, settings.model)
    scope = Scope(open_collection(run, "images", settings.images.uri, settings.images))
    manifest = scope.manifest
    with connect(settings.cluster):
        actors = predict_actors(settings.cluster, manifest.num_shards)
        found, plan = measure(run.store, scope, model, settings.predict, actors, settings.plan.sample_images)
        present = connected_cluster(ray.nodes(), settings.plan)
    for line in plan.get("said", []):
        log_event("plan", line)
    pool = scaled_pool(
        PoolTotals(manifest.num_rows, sum(manifest.shards["bytes"].to_pylist()), manifest.num_shards), settings.plan
    )
    stages = ", ".join(f"{stage} {1000 * getattr(found, stage):.2f}" for stage in ("read", "decode", "infer", "write"))
    log_event("plan", f"{found.images} images measured, ms per image and worker: {stages}")
    print_estimate("this cluster", present, found, pool, settings.plan)
    if (described := described_cluster(settings.plan)) is not None:
        print_estimate("the described cluster", described, found, pool, settings.plan)


def scaled_pool(pool: PoolTotals, settings: PlanSettings) -> PoolTotals:
    """The pool scaled to `plan.pool_images`, with images and shards like its own."""
    if settings.pool_images is None:
        return pool
    factor = settings.pool_images / pool.images
    return PoolTotals(settings.pool_images, round(pool.bytes * factor), max(1, round(pool.shards * factor)))


def connected_cluster(nodes: list[dict[str, Any]], settings: PlanSettings) -> ClusterCapacity:
    """The cluster of `ray.nodes()`, without nodes that have no CPU and no GPU (often the head)."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    working = [resources for resources in alive if resources.get("CPU") or resources.get("GPU")]
    cpus, gpus = (int(sum(resources.get(kind, 0) for resources in working)) for kind in ("CPU", "GPU"))
    return ClusterCapacity(len(working), cpus, gpus, settings.price_node_hour)


def described_cluster(settings: PlanSettings) -> ClusterCapacity | None:
    """The cluster of `plan.cluster`."""
    if (shape := settings.cluster) is None:
        return None
    return ClusterCapacity(
        shape.nodes,
        shape.nodes * shape.cpus_per_node,
        shape.nodes * shape.gpus_per_node,
        settings.price_node_hour if shape.price_node_hour is None else shape.price_node_hour,
        None if shape.images_per_second is None else 1 / shape.images_per_second,
        None if shape.gbits_per_node is None else shape.gbits_per_node * 1e9 / 8,
    )


def print_estimate(
    title: str, capacity: ClusterCapacity, found: MeasuredCosts, pool: PoolTotals, settings: PlanSettings
) -> None:
    """Print the estimates as a table."""
    steps = estimate(found, pool, capacity, settings.selected_share)
    heading = f"{pool.images:,} images on {title}: {capacity.nodes} nodes, {capacity.workers} workers"
    table = Table(title=heading, title_justify="left")
    for column in ("step", "time", "cost", "read", "written", "memory/worker", "bound by"):
        table.add_column(column, justify="left" if column in ("step", "bound by") else "right")
    for step in [*steps, total(steps)]:
        cost = f"{step.cost:,.2f}" if capacity.price else "-"
        sizes = (format_bytes(step.read), format_bytes(step.written), format_bytes(step.memory))
        table.add_row(step.step, format_duration(step.seconds), cost, *sizes, step.bound)
    Console().print(table)


def total(steps: list[Estimate]) -> Estimate:
    """All steps, one after the other."""
    sums = {name: sum(getattr(step, name) for step in steps) for name in ("seconds", "cost", "read", "written")}
    return Estimate("all", memory=max(step.memory for step in steps), bound="", **sums)


if __name__ == "__main__":
    cli.run(main)
