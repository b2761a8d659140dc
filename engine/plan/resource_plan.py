"""The resource plan of a run: which step takes how many CPUs, GPUs and GiB, and why. Arithmetic on what the cluster has and the settings ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from engine.fit.trainer import train_workers
from engine.ground.resources import allocate_actors
from engine.settings.fit import FitSettings
from engine.settings.run import RunSettings

GIB = 2**30
PROCESS = 1.2
"""GiB of a worker with torch and Ray, before it holds data (1.1 measured)."""
MANY = 10**9
"""Units of work of which there are more than workers."""


@dataclass(frozen=True)
class StepResources:
    """One kind of step: `workers`, and what each takes. GiB are an upper estimate without the model's own activations."""

    step: str
    workers: int
    cpus: float
    gpus: float
    gib: float
    why: str

    @property
    def total_gib(self) -> float:
        return self.workers * self.gib


def plan_resources(
    settings: RunSettings, resources: Mapping[str, float], nodes: Sequence[float] | None = None
) -> list[StepResources]:
    """The steps of a generation in their order, on a cluster with `resources` (CPU, GPU, memory in bytes); `nodes`: the CPUs of every machine,
    one has all when not given.
    """
    cluster = settings.cluster
    fits = [
        ("teacher fit", settings.fits.teacher),
        ("student fit", settings.fits.student),
        ("finetune", settings.fits.finetune),
    ]
    shares = [_fit(name, fit, settings, resources, nodes) for name, fit in fits if fit is not None]
    if settings.recipe.num_generations == 0 or settings.data.pool is None:
        return shares
    actors = allocate_actors(resources, MANY, cluster.label.workers, cluster.label.gpus_per_worker)
    side = settings.models.teacher.img_size
    batches = 3 * settings.predict.batch_size * 3 * side * side * 4 / GIB  # float32, one inferred and two decoded ahead
    shard = settings.data.shard_bytes / GIB
    asked = (
        f"cluster.label.workers={cluster.label.workers}"
        if cluster.label.workers
        else "one a GPU"
        if actors.gpus
        else "one a CPU"
    )
    decoders = (
        f"; {actors.threads} threads decode ahead of each" if actors.gpus else "; each decodes and infers on its CPU"
    )
    labelling = StepResources(
        "predict", actors.count, actors.cpus, actors.gpus, PROCESS + batches + shard, f"{asked}{decoders}"
    )
    cpus = max(1, int(resources.get("CPU", 1)))
    select = StepResources(
        "select", cpus, 1, 0, 0.5, "one task a CPU; memory grows with classes x per_class, not with the pool"
    )
    gather = StepResources("gather", cpus, 1, 0, 0.5 + shard, "one task a CPU copies what was selected")
    return [shares[0], labelling, select, gather, *shares[1:]]


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
    why = f"cluster.train.workers={workers}; decoded sets up to {cache:.1f} GiB stay in memory (cache_bytes), larger ones stream"
    return StepResources(name, workers, each.get("CPU", 1.0), each.get("GPU", 0.0), PROCESS + cache, why)


def warnings(
    shares: list[StepResources], resources: Mapping[str, float], nodes: Sequence[float] | None = None
) -> list[str]:
    """What the cluster cannot give, a sentence each."""
    told = []
    largest = max(nodes or [resources.get("CPU", 0.0)])
    for share in shares:
        if share.cpus > max(1.0, largest):
            told.append(
                f"{share.step} wants {share.cpus:g} CPUs on one machine, the largest has {largest:g}: it waits for a larger one;"
                " lower cluster.train.cpus"
            )
        for kind, wanted in (("CPU", share.workers * share.cpus), ("GPU", share.workers * share.gpus)):
            if wanted > resources.get(kind, 0.0) + 1e-6:
                told.append(
                    f"{share.step} wants {wanted:g} {kind}s, the cluster has {resources.get(kind, 0.0):g}: it waits for more"
                )
        memory = resources.get("memory", 0.0) / GIB
        if memory and share.total_gib > memory:
            told.append(
                f"{share.step} may take {share.total_gib:.0f} GiB in all, the cluster has {memory:.0f}: lower its workers or cache_bytes"
            )
    return told


def show(
    shares: list[StepResources],
    resources: Mapping[str, float],
    nodes: Sequence[float] | None = None,
    console: Console | None = None,
) -> None:
    """Print the plan."""
    memory = resources.get("memory", 0.0) / GIB
    has = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs, {memory:.0f} GiB for workers"
    table = Table(
        title=f"resource plan: the steps run one after the other, each with all it needs of {has}", title_justify="left"
    )
    for column in ("step", "workers", "CPUs each", "GPUs each", "GiB each", "why"):
        table.add_column(column, justify="left" if column in ("step", "why") else "right", overflow="fold")
    for share in shares:
        table.add_row(
            share.step, str(share.workers), f"{share.cpus:g}", f"{share.gpus:g}", f"{share.gib:.1f}", share.why
        )
    console = console or Console(width=max(120, Console().width))
    console.print(table)
    for line in warnings(shares, resources, nodes):
        console.print(line, markup=False, highlight=False)
