"""Measure every node with a small task on each."""

import io
import platform
import shutil
import time
import uuid
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from PIL import Image
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine import __version__
from engine.cluster.checks import NodeFacts, clock_ahead
from engine.ground import storage
from engine.ground.resources import ANYWHERE
from engine.ground.steps import Store
from engine.images.decode import Frame, decode

PACKAGES = ("ray", "torch", "torchvision", "timm", "pyarrow", "numpy", "simplejpeg")
TIMED_SECONDS = 0.5
PATIENCE = 180.0
"""Seconds within which every node has to answer."""
SCRATCH = Path("/tmp/ray")
"""Ray's default folder for logs and spilled objects."""


def probe(store: Store) -> tuple[NodeFacts, list[NodeFacts]]:
    """The facts of this machine and of every node of the connected cluster. Raises RuntimeError for nodes that do not answer."""
    task = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=0, max_retries=0)(measure_node)
    pending = {}
    for node in (node for node in ray.nodes() if node["Alive"]):
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        sent = time.time()
        asked = task.options(scheduling_strategy=strategy).remote(store, node["Resources"])
        pending[asked] = (node["NodeManagerAddress"], sent)
    found, deadline = [], time.monotonic() + PATIENCE
    while pending:
        ready, _ = ray.wait(list(pending), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            names = ", ".join(address for address, _ in pending.values())
            raise RuntimeError(
                f"no answer within {PATIENCE:.0f} s from {names}: see `ray status` and the logs of these nodes"
            )
        address, sent = pending.pop(ready[0])
        facts, began = ray.get(ready[0])
        ahead = clock_ahead(sent, began, time.time())
        found.append(replace(facts, node=f"{facts.node} ({address})", ahead=ahead))
    return measure_node(store, {})[0], sorted(found, key=lambda facts: facts.node)


def measure_node(store: Store, resources: dict[str, Any]) -> tuple[NodeFacts, float]:
    """The facts of this process's machine, and its clock when the measurement began. `resources`: what Ray schedules there."""
    began = time.time()
    error, seconds = write_and_read(store)
    place = SCRATCH if SCRATCH.is_dir() else Path("/tmp")
    facts = NodeFacts(
        node=platform.node(),
        versions=versions(),
        cpus=float(resources.get("CPU", 0.0)),
        gpus_declared=int(resources.get("GPU", 0)),
        gpus_seen=torch.cuda.device_count(),
        store_error=error,
        store_seconds=seconds,
        disk_free=shutil.disk_usage(place).free,
        disk_at=str(place),
        object_store=int(resources.get("object_store_memory", 0)),
        memory=psutil.virtual_memory().total,
        ahead=0.0,
        decode_rate=decode_rate(),
        token=is_token_auth_enabled(),
    )
    return facts, began


def versions() -> dict[str, str]:
    """Versions of the packages on which results and messages between nodes depend."""
    found = {"python": platform.python_version(), "engine": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def write_and_read(store: Store) -> tuple[str, float]:
    """Write, read and delete a small file in the store: the error (empty on success) and the seconds."""
    started = time.perf_counter()
    data = uuid.uuid4().bytes
    try:
        path = f"{store.root}/doctor/{data.hex()}"
        storage.put(store.fs, path, data)
        back = storage.get(store.fs, path)
        store.fs.delete_file(path)
    except (OSError, ValueError) as error:
        return f"{store.uri}: {error}", time.perf_counter() - started
    return (
        "" if back == data else f"{store.uri}: the bytes read differ from the bytes written",
        time.perf_counter() - started,
    )


def decode_rate() -> float:
    """JPEGs of 500 x 375 pixels decoded per second by one thread."""
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    frame = Frame(224)
    decode(data, frame)  # the first call loads the decoder
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < TIMED_SECONDS:
        decode(data, frame)
        count += 1
    torch.set_num_threads(threads)
    return count / passed
