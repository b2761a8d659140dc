"""Checks of a cluster and the remedy for each finding: pure functions of the facts that `probe` collects."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]

GIB = 2**30
FREE_DISK = 20 * GIB
"""Free bytes where Ray puts logs and spills below which a node is at risk."""
OBJECT_STORE = GIB
CLOCK_SECONDS = 2.0
DECODE_RATE = 150.0
"""JPEGs of 500 x 375 pixels per second and core below which a node's CPU or decoder is suspect; 400 to 1,000 are usual."""
STORE_SECONDS = 2.0


@dataclass(frozen=True)
class NodeFacts:
    """Measurements of one node. `ahead`: seconds by which its clock is ahead of the driver's beyond the time of the call, negative when behind.

    `gpus_declared` is the number that Ray schedules, `gpus_seen` the number that torch can use; sizes in bytes, times in seconds.
    """

    node: str
    versions: dict[str, str]
    cpus: float
    gpus_declared: int
    gpus_seen: int
    store_error: str
    store_seconds: float
    disk_free: int
    disk_at: str
    object_store: int
    memory: int
    ahead: float
    decode_rate: float
    token: bool


@dataclass(frozen=True)
class Finding:
    """The result of one check. `node` is empty for the whole cluster; `remedy` is empty when `level` is "ok"."""

    level: Level
    what: str
    node: str
    message: str
    remedy: str = ""


def check_cluster(driver: NodeFacts, nodes: list[NodeFacts]) -> list[Finding]:
    """All findings, most severe first. `driver`: the machine that starts jobs; the nodes must have its versions."""
    findings = [*_versions(driver, nodes), *_whole(nodes)]
    for node in nodes:
        findings += [finding for check in CHECKS for finding in check(node)]
    order = {"error": 0, "warning": 1, "ok": 2}
    return sorted(findings, key=lambda finding: order[finding.level])


def _versions(driver: NodeFacts, nodes: list[NodeFacts]) -> Iterator[Finding]:
    for package, version in driver.versions.items():
        others = {node.node: node.versions.get(package, "missing") for node in nodes}
        odd = {name: found for name, found in others.items() if found != version}
        if not odd:
            yield Finding("ok", f"version of {package}", "", f"{version} everywhere")
            continue
        message = ", ".join(f"{found} on {name}" for name, found in odd.items())
        # different versions of these cannot read each other's messages; different versions of the rest only change results
        level: Level = "error" if package in ("python", "ray", "engine") else "warning"
        remedy = "start all nodes from one image (cluster/Dockerfile)"
        yield Finding(level, f"version of {package}", "", f"{version} on the driver, but {message}", remedy)


def _whole(nodes: list[NodeFacts]) -> Iterator[Finding]:
    cpus = sum(node.cpus for node in nodes)
    message = f"{len(nodes)} nodes, {cpus:.0f} CPUs, {sum(node.gpus_declared for node in nodes)} GPUs"
    if cpus < 1:
        yield Finding(
            "error",
            "work",
            "",
            f"{message}: no node has a CPU to schedule on",
            "start workers, or give the head CPUs (ray start --num-cpus)",
        )
    else:
        yield Finding("ok", "work", "", message)
    if not all(node.token for node in nodes):
        open_nodes = ", ".join(node.node for node in nodes if not node.token)
        remedy = "set RAY_AUTH_MODE=token on every node and for every user who submits (cluster/README.md)"
        yield Finding(
            "error",
            "authentication",
            "",
            f"off on {open_nodes}: anyone who reaches its ports can run programs there",
            remedy,
        )
    else:
        yield Finding("ok", "authentication", "", "by token")


def _gpus(node: NodeFacts) -> Iterator[Finding]:
    if node.gpus_seen < node.gpus_declared:
        remedy = "check nvidia-smi there; the container needs the NVIDIA runtime, and torch a driver that is new enough"
        message = f"Ray schedules {node.gpus_declared} GPUs, torch sees {node.gpus_seen}"
        yield Finding("error", "GPUs", node.node, message, remedy)
    elif node.gpus_seen > node.gpus_declared:
        message = f"torch sees {node.gpus_seen} GPUs, Ray schedules {node.gpus_declared}"
        yield Finding(
            "warning",
            "GPUs",
            node.node,
            message,
            "start the node with --num-gpus, or ask Kubernetes for nvidia.com/gpu",
        )
    elif node.gpus_seen:
        yield Finding("ok", "GPUs", node.node, f"{node.gpus_seen}")


def _store(node: NodeFacts) -> Iterator[Finding]:
    if node.store_error:
        remedy = (
            "give the node the same mount or credentials as the driver (instance profile, service account, environment)"
        )
        yield Finding("error", "store", node.node, node.store_error, remedy)
    elif node.store_seconds > STORE_SECONDS:
        message = f"a small file takes {node.store_seconds:.1f} s to write, read and delete"
        yield Finding("warning", "store", node.node, message, "use a store in the same region or network")
    else:
        yield Finding("ok", "store", node.node, f"writable, {1000 * node.store_seconds:.0f} ms per small file")


def _disk(node: NodeFacts) -> Iterator[Finding]:
    message = f"{node.disk_free / GIB:.0f} GiB free at {node.disk_at}"
    if node.disk_free < FREE_DISK:
        yield Finding(
            "warning", "disk", node.node, message, "free it or mount a larger volume there: Ray logs and spills to it"
        )
    else:
        yield Finding("ok", "disk", node.node, message)


def _object_store(node: NodeFacts) -> Iterator[Finding]:
    message = f"{node.object_store / GIB:.1f} GiB of {node.memory / GIB:.0f} GiB memory"
    if 0 < node.object_store < OBJECT_STORE and node.cpus:
        yield Finding(
            "warning",
            "object store",
            node.node,
            message,
            "a larger /dev/shm (--shm-size, or an emptyDir of medium Memory)",
        )
    else:
        yield Finding("ok", "object store", node.node, message)


def _clock(node: NodeFacts) -> Iterator[Finding]:
    if abs(node.ahead) > CLOCK_SECONDS:
        side = "ahead of" if node.ahead > 0 else "behind"
        yield Finding(
            "warning", "clock", node.node, f"{abs(node.ahead):.1f} s {side} the driver", "run an NTP client there"
        )
    else:
        yield Finding("ok", "clock", node.node, "in sync")


def _decoding(node: NodeFacts) -> Iterator[Finding]:
    message = f"{node.decode_rate:.0f} JPEGs/s per core"
    if node.cpus and node.decode_rate < DECODE_RATE:
        remedy = (
            "look for other work on the node and for CPU limits of its container; install simplejpeg from its wheel"
        )
        yield Finding("warning", "decoding", node.node, message, remedy)
    elif node.cpus:
        yield Finding("ok", "decoding", node.node, message)


def clock_ahead(sent: float, at: float, received: float) -> float:
    """Smallest lead in seconds of a node's clock (negative: behind) consistent with its reading `at` between `sent` and `received`."""
    return at - received if at > received else min(0.0, at - sent)


CHECKS: tuple[Callable[[NodeFacts], Iterator[Finding]], ...] = (_gpus, _store, _disk, _object_store, _clock, _decoding)
