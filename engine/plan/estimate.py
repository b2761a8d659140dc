"""What labelling a pool will take, from what a sample took: arithmetic alone. Times are seconds, sizes bytes, money in the unit of the price."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MeasuredCosts:
    """Seconds one worker spends on one image in each stage, all workers of the machine at work; bytes of an image and of its prediction; resident
    bytes of a worker; seconds a prediction costs in `select`. `boot`: seconds until a task has begun; `start_up`: seconds until all workers label,
    with the choice of the backend."""

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
    """What is to be labelled."""

    images: int
    bytes: int
    shards: int


@dataclass(frozen=True)
class ClusterCapacity:
    """A cluster: one worker a GPU where there are GPUs, else one a CPU. `cpus` and `gpus` are those of all nodes. `infer`: seconds an image on its
    devices when they are not those of the measurement. `bandwidth`: bytes a second into one node, where it is known."""

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
        """Threads that decode for one worker."""
        return max(1, self.cpus // self.gpus) if self.gpus else 1


@dataclass(frozen=True)
class Estimate:
    """One step for the whole pool. `memory` is that of a worker; `bound` names what a faster cluster would need more of."""

    step: str
    seconds: float
    cost: float
    read: float
    written: float
    memory: float
    bound: str


def estimate(
    measured: MeasuredCosts, pool: PoolTotals, machines: ClusterCapacity, selected: float = 0.1
) -> list[Estimate]:
    """The steps predict, select and gather. `selected`: share of the images that selection will keep."""
    if machines.workers < 1:
        raise ValueError(
            f"{machines.nodes} nodes with {machines.cpus} CPUs and {machines.gpus} GPUs in all are no worker at all"
        )
    return [
        _predict(measured, pool, machines),
        _select(measured, pool, machines),
        _gather(measured, pool, machines, selected),
    ]


def _predict(measured: MeasuredCosts, pool: PoolTotals, machines: ClusterCapacity) -> Estimate:
    infer = machines.infer if machines.infer is not None else measured.infer
    if machines.gpus:  # decoding runs ahead of the device: the slower of the two sets the pace
        feed = {"read": measured.read / machines.decoders, "decode": measured.decode / machines.decoders}
        stages = {**feed, "infer": infer, "write": measured.write}
        an_image = max(sum(feed.values()), infer + measured.write)
    else:
        stages = {"read": measured.read, "decode": measured.decode, "infer": infer, "write": measured.write}
        an_image = sum(stages.values())
    bound = max(stages, key=lambda stage: stages[stage])
    # whole shards are handed out: the last round leaves workers idle
    rounds = math.ceil(pool.shards / machines.workers)
    seconds = rounds * (pool.images / max(1, pool.shards)) * an_image
    if pool.shards < machines.workers:
        bound = "too few shards for the workers"
    seconds, bound = _wire(seconds, bound, pool.bytes, machines)
    written = pool.images * measured.prediction_bytes
    return _priced("predict", seconds + measured.start_up, machines, pool.bytes, written, measured.resident, bound)


def _select(measured: MeasuredCosts, pool: PoolTotals, machines: ClusterCapacity) -> Estimate:
    predictions = pool.images * measured.prediction_bytes
    cpus = max(1, min(machines.cpus, pool.shards))
    seconds, bound = _wire(pool.images * measured.select / cpus, "compute", predictions, machines)
    return _priced("select", seconds + measured.boot, machines, predictions, 0.0, measured.resident, bound)


def _gather(measured: MeasuredCosts, pool: PoolTotals, machines: ClusterCapacity, selected: float) -> Estimate:
    moved = selected * pool.bytes
    cpus = max(1, min(machines.cpus, pool.shards))
    both = 2 * measured.read * selected * pool.images / cpus  # read, and written at about the same pace
    seconds, bound = _wire(both, "read", moved, machines)
    return _priced("gather", seconds + measured.boot, machines, moved, moved, measured.resident, bound)


def _wire(seconds: float, bound: str, volume: float, machines: ClusterCapacity) -> tuple[float, str]:
    """No step is faster than its bytes come over the network."""
    if machines.bandwidth is None:
        return seconds, bound
    least = volume / (machines.nodes * machines.bandwidth)
    return (least, "network") if least > seconds else (seconds, bound)


def _priced(
    step: str, seconds: float, machines: ClusterCapacity, read: float, written: float, memory: float, bound: str
) -> Estimate:
    cost = seconds / 3600 * machines.nodes * machines.price
    return Estimate(step, seconds, cost, read, written, memory, bound)


def duration(seconds: float) -> str:
    """`3 d 4 h`, `2 h 5 min`, `40 s`."""
    for size, name, smaller, other in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {name} {round(seconds % size / smaller)} {other}"
    return f"{seconds:.0f} s"


def volume(size: float) -> str:
    """`3.4 TB`."""
    for power, name in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {name}"
    return f"{size:.0f} B"
