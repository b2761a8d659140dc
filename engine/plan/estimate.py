"""Estimate time, cost and bytes of predicting a pool from the costs of a sample. Times in seconds, sizes in bytes, cost in the unit of the price."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class MeasuredCosts:
    """Costs of a sample: seconds per image and worker in each stage (all workers of the node busy), bytes per image and per prediction, resident
    bytes per worker, seconds per prediction in `select`. `boot`: seconds until a task starts; `start_up`: seconds until all workers predict,
    the choice of the backend included."""

    images: int
    read: float
    decode: float
    infer: float
    write: float
    image_bytes: float
    prediction_bytes: float
    resident: int
    boot: float
    start_up: float
    select: float


@dataclass(frozen=True)
class PoolTotals:
    """Size of the pool to predict."""

    images: int
    bytes: int
    shards: int


@dataclass(frozen=True)
class ClusterCapacity:
    """A cluster: one worker per GPU if it has GPUs, else one per CPU. `cpus` and `gpus` are totals over all nodes. `infer`: seconds per image on its
    devices (None: as measured). `bandwidth`: bytes per second into one node (None: unlimited)."""

    nodes: int
    cpus: int
    gpus: int = 0
    price: float = 0.0
    infer: float | None = None
    bandwidth: float | None = None

    @property
    def workers(self) -> int:
        return self.gpus or self.cpus

    @property
    def decoders(self) -> int:
        """Decoding threads per worker."""
        return max(1, self.cpus // self.gpus) if self.gpus else 1


@dataclass(frozen=True)
class Estimate:
    """Estimate of one step for the whole pool. `memory` is per worker; `bound` names the bottleneck."""

    step: str
    seconds: float
    cost: float
    read: float
    written: float
    memory: float
    bound: str


def estimate(
    measured: MeasuredCosts, pool: PoolTotals, capacity: ClusterCapacity, selected: float = 0.1
) -> list[Estimate]:
    """Estimates of predict, select and gather. `selected`: share of the images that selection keeps. Raises ValueError without workers."""
    if capacity.workers < 1:
        raise ValueError(
            f"{capacity.nodes} nodes with {capacity.cpus} CPUs and {capacity.gpus} GPUs have no worker: give nodes, cpus_per_node or gpus_per_node"
        )
    return [
        _predict(measured, pool, capacity),
        _select(measured, pool, capacity),
        _gather(measured, pool, capacity, selected),
    ]


def _predict(measured: MeasuredCosts, pool: PoolTotals, capacity: ClusterCapacity) -> Estimate:
    infer = capacity.infer if capacity.infer is not None else measured.infer
    if capacity.gpus:  # decoding overlaps with inference: the slower of the two bounds the rate
        feed = {"read": measured.read / capacity.decoders, "decode": measured.decode / capacity.decoders}
        stages = {**feed, "infer": infer, "write": measured.write}
        seconds_per_image = max(sum(feed.values()), infer + measured.write)
    else:
        stages = {"read": measured.read, "decode": measured.decode, "infer": infer, "write": measured.write}
        seconds_per_image = sum(stages.values())
    bound = max(stages, key=lambda stage: stages[stage])
    # shards are not split, so some workers are idle at the end
    shards_per_worker = math.ceil(pool.shards / capacity.workers)
    seconds = shards_per_worker * (pool.images / max(1, pool.shards)) * seconds_per_image
    if pool.shards < capacity.workers:
        bound = "too few shards for the workers"
    seconds, bound = _at_least_network_time(seconds, bound, pool.bytes, capacity)
    written = pool.images * measured.prediction_bytes
    return _with_cost(
        Estimate("predict", seconds + measured.start_up, 0.0, pool.bytes, written, measured.resident, bound), capacity
    )


def _select(measured: MeasuredCosts, pool: PoolTotals, capacity: ClusterCapacity) -> Estimate:
    predictions = pool.images * measured.prediction_bytes
    cpus = max(1, min(capacity.cpus, pool.shards))
    seconds, bound = _at_least_network_time(pool.images * measured.select / cpus, "compute", predictions, capacity)
    return _with_cost(
        Estimate("select", seconds + measured.boot, 0.0, predictions, 0.0, measured.resident, bound), capacity
    )


def _gather(measured: MeasuredCosts, pool: PoolTotals, capacity: ClusterCapacity, selected: float) -> Estimate:
    moved = selected * pool.bytes
    cpus = max(1, min(capacity.cpus, pool.shards))
    both = 2 * measured.read * selected * pool.images / cpus  # writing takes about as long as reading
    seconds, bound = _at_least_network_time(both, "read", moved, capacity)
    return _with_cost(
        Estimate("gather", seconds + measured.boot, 0.0, moved, moved, measured.resident, bound), capacity
    )


def _at_least_network_time(seconds: float, bound: str, volume: float, capacity: ClusterCapacity) -> tuple[float, str]:
    """Seconds and bottleneck of a step, bounded below by the transfer time of `volume` bytes."""
    if capacity.bandwidth is None:
        return seconds, bound
    least = volume / (capacity.nodes * capacity.bandwidth)
    return (least, "network") if least > seconds else (seconds, bound)


def _with_cost(estimate: Estimate, capacity: ClusterCapacity) -> Estimate:
    return replace(estimate, cost=estimate.seconds / 3600 * capacity.nodes * capacity.price)


def format_bytes(size: float) -> str:
    """`3.4 TB`."""
    for power, name in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {name}"
    return f"{size:.0f} B"
