"""Resources of a step: pure arithmetic on the resources of the cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import ray

from engine.settings.cluster import ClusterSettings

ANYWHERE: Final = "DEFAULT"
"""Scheduling strategy of every task of the engine: the tasks of a search trial are placed on the whole cluster too, not in the placement group of the
trial, which holds no CPU."""


@dataclass(frozen=True)
class ActorPoolSpec:
    """A pool of workers: their number, the CPUs, GPUs and torch threads of each."""

    count: int
    cpus: float
    gpus: float
    threads: int


def allocate_actors(
    resources: Mapping[str, float], work: int, wanted: int | None = None, gpus_per_worker: float | None = None
) -> ActorPoolSpec:
    """Workers for `work` independent units: one per GPU if the cluster has GPUs, else one per CPU; at most `work`.

    `wanted`: number of workers, `gpus_per_worker`: GPUs of each (default: as above). GPU workers reserve one CPU, so that CPUs remain for reading and
    decoding; CPU workers take one CPU and one thread each, which is faster than fewer workers with several threads.
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
    """Most CPUs that each of `workers` can have, none of them spread over two nodes; at least 1. `nodes`: CPUs of each node."""
    for cpus in range(int(max(nodes, default=1)), 1, -1):
        if sum(int(node // cpus) for node in nodes) >= workers:
            return cpus
    return 1


def node_cpus() -> list[float]:
    """CPUs of each live node of the connected cluster."""
    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]


class PoolSizes(NamedTuple):
    """Minimum, maximum and initial number of actors."""

    minimum: int
    maximum: int
    initial: int


def pool_sizes(count: int, maximum: int | None) -> PoolSizes:
    """Sizes of an actor pool: fixed at `count`, or elastic between 1 and `maximum`, starting with `count`."""
    return PoolSizes(count, count, count) if maximum is None or maximum <= count else PoolSizes(1, maximum, count)


def predict_actors(cluster: ClusterSettings, shards: int) -> ActorPoolSpec:
    """The actor pool of a predict step on the connected cluster."""
    return allocate_actors(
        ray.cluster_resources(), max(1, shards), cluster.label.workers, cluster.label.gpus_per_worker
    )
