"""How much of the cluster a step takes: pure arithmetic on what the cluster has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import ray

from engine.settings.cluster import ClusterSettings

ANYWHERE: Final = "DEFAULT"
"""Scheduling strategy of every task of the engine: those that a search's trial starts are placed on the whole cluster, too, and not in the trial's
own placement group, which holds no CPU."""


@dataclass(frozen=True)
class ActorPoolSpec:
    """A pool of workers. `threads` is what torch may use inside each."""

    count: int
    cpus: float
    gpus: float
    threads: int


def allocate_actors(
    resources: Mapping[str, float], work: int, wanted: int | None = None, gpus_per_worker: float | None = None
) -> ActorPoolSpec:
    """Workers for `work` independent units: one a GPU where there are GPUs, else one a CPU; never more than there is work.

    GPU workers ask for no CPU of the scheduler's but one, so that reading and decoding find theirs; CPU workers take one CPU and one thread each,
    which is faster than fewer workers with several threads.
    """
    gpus = resources.get("GPU", 0.0)
    cpus = max(1.0, resources.get("CPU", 1.0))
    if gpus_per_worker is None:
        gpus_per_worker = 1.0 if gpus >= 1 else 0.0
    fitting = int(gpus / gpus_per_worker) if gpus_per_worker else int(cpus)
    count = max(1, min(wanted or fitting, work))
    cpus_each = 1.0 if count <= cpus else cpus / count
    threads = max(1, int(cpus // count)) if gpus_per_worker else 1
    return ActorPoolSpec(count, cpus_each, gpus_per_worker, threads)


def cpus_each(nodes: Sequence[float], workers: int) -> int:
    """The most CPUs that each of `workers` can have when `nodes` are the CPUs of every machine and none may straddle two; at least 1."""
    for cpus in range(int(max(nodes, default=1)), 1, -1):
        if sum(int(node // cpus) for node in nodes) >= workers:
            return cpus
    return 1


def node_cpus() -> list[float]:
    """The CPUs of every machine of the cluster that this process is connected to."""
    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]


class PoolSizes(NamedTuple):
    """How few, how many, and how many actors at first."""

    least: int
    most: int
    first: int


def pool_sizes(count: int, most: int | None) -> PoolSizes:
    """Sizes of an actor pool: fixed, or elastic between 1 and `most`, beginning with `count`."""
    return PoolSizes(count, count, count) if most is None or most <= count else PoolSizes(1, most, count)


def predict_actors(cluster: ClusterSettings, shards: int) -> ActorPoolSpec:
    """The pool for a labelling step on the cluster that this process is connected to."""
    return allocate_actors(
        ray.cluster_resources(), max(1, shards), cluster.label.workers, cluster.label.gpus_per_worker
    )
