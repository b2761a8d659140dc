"""How many trials run at once, and what each may take: so many that every one can finish its largest step, and no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.ground.resources import cpus_each
from engine.settings.cluster import ClusterSettings

TRIAL_BYTES = 2**30
"""Memory of the process that leads a trial: torch and Ray without data."""
WORKER_BYTES = 2 * 2**30
"""Memory to reckon with for what a trial starts."""


@dataclass(frozen=True)
class TrialAllocation:
    """`concurrent` trials; a trial's own cluster settings; the sentence that says why."""

    concurrent: int
    cluster: ClusterSettings
    why: str


def allocate_trials(
    resources: Mapping[str, float],
    cluster: ClusterSettings,
    trials: int,
    wanted: int | None = None,
    nodes: Sequence[float] | None = None,
) -> TrialAllocation:
    """Trials at once on a cluster with `resources` (CPU, GPU, memory in bytes); `nodes`: the CPUs of every machine, one has all when not given.
    Raises ValueError when not even one fits.

    A trial fits, labels and evaluates one after the other, so it holds at most its share at a time: none waits for another for ever.
    """
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    fit_cpus = cluster.train.workers * (cluster.train.cpus or 1)
    on_gpu = gpus >= cluster.train.workers or bool(cluster.label.gpus_per_worker)
    limits = {f"{cpus} CPUs, {fit_cpus} for a fit": cpus // fit_cpus, "the number of trials": trials}
    if "memory" in resources:
        limits["the memory"] = int(resources["memory"] // (TRIAL_BYTES + WORKER_BYTES))
    if on_gpu:
        limits[f"{gpus} GPUs, {cluster.train.workers} for a fit"] = gpus // cluster.train.workers
    if wanted is not None:
        limits["search.concurrent"] = wanted
    bound = min(limits, key=lambda name: limits[name])
    concurrent = limits[bound]
    if concurrent < 1:
        raise ValueError(
            f"not even one trial fits: bound by {bound}; lower cluster.train.workers or cluster.train.cpus, or take more or larger machines"
        )
    units = gpus // max(1, int(cluster.label.gpus_per_worker or 1)) if on_gpu else cpus
    labelling = max(1, (cluster.label.workers or units) // concurrent)
    fitting = cpus_each(nodes or [cpus], concurrent * cluster.train.workers)
    train_cpus = cluster.train.cpus or (None if on_gpu else fitting)
    # elastic training could take other trials' CPUs
    train = cluster.train.model_copy(update={"cpus": train_cpus, "min_workers": None})
    label = cluster.label.model_copy(update={"workers": labelling})
    own = cluster.model_copy(update={"train": train, "label": label})
    each = f"{train_cpus or 1} CPUs{' and a GPU' if on_gpu else ''} a training worker, {labelling} labelling workers"
    return TrialAllocation(concurrent, own, f"{concurrent} at once, bound by {bound}; each: {each}")
