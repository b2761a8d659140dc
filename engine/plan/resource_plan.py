"""The resource plan of a run: workers, CPUs, GPUs and GiB of each step, from the cluster's resources and the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from engine.fit.trainer import train_workers
from engine.ground.resources import allocate_actors
from engine.report.console import Console
from engine.settings.fit import FitSettings
from engine.settings.run import RunSettings

GIB = 2**30
PROCESS = 1.2
"""GiB of a worker process with torch and Ray, without data (1.1 measured)."""
MANY = 10**9
"""Units of work: more than there are workers."""


@dataclass(frozen=True)
class StepResources:
    """Resources of one kind of step: `workers` and what each of them takes. `gib` is an upper estimate without the model's activations."""

    step: str
    workers: int
    cpus: float
    gpus: float
    gib: float
    note: str

    @property
    def total_gib(self) -> float:
        return self.workers * self.gib


def plan_resources(
    settings: RunSettings, resources: Mapping[str, float], nodes: Sequence[float] | None = None
) -> list[StepResources]:
    """The steps of a generation in order, on a cluster with `resources` (CPU, GPU, memory in bytes); `nodes`: CPUs of each node (default: one
    node with all of them).
    """
    cluster = settings.cluster
    fits = [
        ("teacher fit", settings.fits.teacher),
        ("student fit", settings.fits.student),
        ("finetune", settings.fits.finetune),
    ]
    made = settings.recipe.fits(settings)
    steps = [_fit(name, fit, settings, resources, nodes) for name, fit in fits if fit is not None and made]
    if settings.recipe.num_generations == 0 or settings.data.pool is None:
        return steps
    actors = allocate_actors(resources, MANY, cluster.label.workers, cluster.label.gpus_per_worker)
    side = settings.models.teacher.img_size
    batches = 3 * settings.predict.batch_size * 3 * side * side * 4 / GIB  # float32, one inferred and two decoded ahead
    shard = settings.data.shard_bytes / GIB
    workers = (
        f"cluster.label.workers={cluster.label.workers}"
        if cluster.label.workers
        else "one worker per GPU"
        if actors.gpus
        else "one worker per CPU"
    )
    decoders = f", {actors.threads} decoding threads each" if actors.gpus else ""
    predict = StepResources(
        "predict", actors.count, actors.cpus, actors.gpus, PROCESS + batches + shard, f"{workers}{decoders}"
    )
    cpus = max(1, int(resources.get("CPU", 1)))
    select = StepResources("select", cpus, 1, 0, 0.5, "one task per CPU; memory independent of pool size")
    gather = StepResources("gather", cpus, 1, 0, 0.5 + shard, "one task per CPU")
    if not made:
        return [predict, select]
    return [steps[0], predict, select, gather, *steps[1:]]


def _fit(
    name: str,
    fit: FitSettings,
    settings: RunSettings,
    resources: Mapping[str, float],
    nodes: Sequence[float] | None,
) -> StepResources:
    scaling = train_workers(settings.cluster, resources, nodes)
    workers = int(settings.cluster.train.workers)
    each: dict[str, float] = scaling.resources_per_worker  # type: ignore[assignment]  # a plain mapping, as `train_workers` makes it
    cache = fit.cache_bytes / GIB
    note = f"caches up to {cache:.1f} GiB of decoded images (cache_bytes)"
    return StepResources(name, workers, each.get("CPU", 1.0), each.get("GPU", 0.0), PROCESS + cache, note)


def warnings(
    steps: list[StepResources], resources: Mapping[str, float], nodes: Sequence[float] | None = None
) -> list[str]:
    """One sentence for each resource that a step needs and the cluster lacks."""
    messages = []
    largest = max(nodes or [resources.get("CPU", 0.0)])
    for step in steps:
        if step.cpus > max(1.0, largest):
            messages.append(
                f"{step.step} needs {step.cpus:g} CPUs on one node, the largest has {largest:g}: it waits for a larger node;"
                " lower cluster.train.cpus"
            )
        for kind, wanted in (("CPU", step.workers * step.cpus), ("GPU", step.workers * step.gpus)):
            if wanted > resources.get(kind, 0.0) + 1e-6:
                messages.append(
                    f"{step.step} needs {wanted:g} {kind}s, the cluster has {resources.get(kind, 0.0):g}: it waits for more"
                )
        memory = resources.get("memory", 0.0) / GIB
        if memory and step.total_gib > memory:
            messages.append(
                f"{step.step} may take {step.total_gib:.0f} GiB in all, the cluster has {memory:.0f}: lower its workers or cache_bytes"
            )
    return messages


def print_plan(
    steps: list[StepResources],
    resources: Mapping[str, float],
    nodes: Sequence[float] | None = None,
    console: Console | None = None,
) -> None:
    """Print the plan."""
    memory = resources.get("memory", 0.0) / GIB
    has = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, {memory:.0f} GiB"
    table = Table(title=f"Resources: {has}; one step at a time", title_justify="left")
    for column in ("step", "workers", "CPUs/worker", "GPUs/worker", "GiB/worker", "note"):
        table.add_column(column, justify="left" if column in ("step", "note") else "right", overflow="fold")
    for step in steps:
        table.add_row(step.step, str(step.workers), f"{step.cpus:g}", f"{step.gpus:g}", f"{step.gib:.1f}", step.note)
    console = console or Console(width=max(120, Console().width))
    console.print(table)
    for line in warnings(steps, resources, nodes):
        console.print(line, markup=False, highlight=False)
