"""What is wrong with a cluster and what to do about it: pure functions of the facts that `probe` collects."""

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
"""JPEGs of 500 x 375 pixels a second and core, below which something is wrong with a node's CPU or its decoder; usual are 400 to 1,000."""
STORE_SECONDS = 2.0


@dataclass(frozen=True)
class NodeFacts:
    """What was found on one node. `ahead`: seconds of its clock before the driver's that cannot be explained by the way there, negative when behind.

    `gpus_declared` is what Ray hands out, `gpus_seen` what torch can use; bytes and seconds throughout.
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
    """One thing that was checked. `node` is empty for what concerns the whole cluster; `remedy` is empty when all is well."""

    level: Level
    what: str
    node: str
    told: str
    remedy: str = ""


def check_cluster(driver: NodeFacts, nodes: list[NodeFacts]) -> list[Finding]:
    """All findings, the gravest first. `driver`: the machine that starts jobs, whose versions the nodes must have."""
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
        told = ", ".join(f"{found} on {name}" for name, found in odd.items())
        # other versions of these read what the driver sends in another way; the rest can only change results
        level: Level = "error" if package in ("python", "ray", "engine") else "warning"
        remedy = "start all nodes from one image (cluster/Dockerfile)"
        yield Finding(level, f"version of {package}", "", f"{version} here, but {told}", remedy)


def _whole(nodes: list[NodeFacts]) -> Iterator[Finding]:
    cpus = sum(node.cpus for node in nodes)
    told = f"{len(nodes)} nodes, {cpus:.0f} CPUs, {sum(node.gpus_declared for node in nodes)} GPUs"
    if cpus < 1:
        yield Finding(
            "error",
            "work",
            "",
            f"{told}: no node takes work",
            "start workers, or give the head CPUs (ray start --num-cpus)",
        )
    else:
        yield Finding("ok", "work", "", told)
    if not all(node.token for node in nodes):
        open_nodes = ", ".join(node.node for node in nodes if not node.token)
        remedy = "set RAY_AUTH_MODE=token on every node and for whoever submits (cluster/README.md)"
        yield Finding(
            "error", "authentication", "", f"off on {open_nodes}: whoever reaches its ports runs programs there", remedy
        )
    else:
        yield Finding("ok", "authentication", "", "by token")


def _gpus(node: NodeFacts) -> Iterator[Finding]:
    if node.gpus_seen < node.gpus_declared:
        remedy = "check nvidia-smi there; the container needs the NVIDIA runtime, and torch a driver that is new enough"
        told = f"Ray hands out {node.gpus_declared} GPUs, torch sees {node.gpus_seen}"
        yield Finding("error", "GPUs", node.node, told, remedy)
    elif node.gpus_seen > node.gpus_declared:
        told = f"torch sees {node.gpus_seen} GPUs, Ray hands out {node.gpus_declared}"
        yield Finding(
            "warning", "GPUs", node.node, told, "start the node with --num-gpus, or ask Kubernetes for nvidia.com/gpu"
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
        told = f"a small file takes {node.store_seconds:.1f} s to write, read and delete"
        yield Finding("warning", "store", node.node, told, "take a store in the same region or network")
    else:
        yield Finding("ok", "store", node.node, f"writable, {1000 * node.store_seconds:.0f} ms a small file")


def _disk(node: NodeFacts) -> Iterator[Finding]:
    told = f"{node.disk_free / GIB:.0f} GiB free at {node.disk_at}"
    if node.disk_free < FREE_DISK:
        yield Finding(
            "warning", "disk", node.node, told, "free it or mount a larger volume there: Ray logs and spills to it"
        )
    else:
        yield Finding("ok", "disk", node.node, told)


def _object_store(node: NodeFacts) -> Iterator[Finding]:
    told = f"{node.object_store / GIB:.1f} GiB of {node.memory / GIB:.0f} GiB memory"
    if 0 < node.object_store < OBJECT_STORE and node.cpus:
        yield Finding(
            "warning",
            "object store",
            node.node,
            told,
            "a larger /dev/shm (--shm-size, or an emptyDir of medium Memory)",
        )
    else:
        yield Finding("ok", "object store", node.node, told)


def _clock(node: NodeFacts) -> Iterator[Finding]:
    if abs(node.ahead) > CLOCK_SECONDS:
        side = "ahead of" if node.ahead > 0 else "behind"
        yield Finding(
            "warning", "clock", node.node, f"{abs(node.ahead):.1f} s {side} the driver", "run an NTP client there"
        )
    else:
        yield Finding("ok", "clock", node.node, "in step")


def _decoding(node: NodeFacts) -> Iterator[Finding]:
    told = f"{node.decode_rate:.0f} JPEGs/s a core"
    if node.cpus and node.decode_rate < DECODE_RATE:
        remedy = (
            "look for other work on the node and for CPU limits of its container; install simplejpeg from its wheel"
        )
        yield Finding("warning", "decoding", node.node, told, remedy)
    elif node.cpus:
        yield Finding("ok", "decoding", node.node, told)


def clock_ahead(sent: float, at: float, received: float) -> float:
    """Seconds by which a node's clock is surely ahead (negative: behind): it read `at` at some time between `sent` and `received`."""
    return at - received if at > received else min(0.0, at - sent)


CHECKS: tuple[Callable[[NodeFacts], Iterator[Finding]], ...] = (_gpus, _store, _disk, _object_store, _clock, _decoding)
