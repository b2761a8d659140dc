"""The connection to Ray: a cluster when an address is given or set, else an embedded local one that listens on the local host only."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from engine.ground import allocator
from engine.settings.cluster import ClusterSettings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.data

QUIET = ("ray.data", "ray.train", "ray.tune")
SILENT = (
    "ray._private.authentication.authentication_token_setup",
    "ray.data._internal.progress",
    "ray.tune.analysis.experiment_analysis",
)
"""Loggers that warn of options which are set here on purpose."""


PATIENCE = 15.0
"""Seconds within which the head of a cluster has to accept a connection."""


def answers(address: str) -> bool:
    """Whether something listens at a cluster's `host:port` or `ray://host:port`; True of other addresses, such as auto, which Ray looks up."""
    found = re.fullmatch(r"(?:ray://)?\[?([^/\]]+?)\]?:(\d+)", address)
    if found is None:
        return True
    try:
        socket.create_connection((found[1], int(found[2])), timeout=PATIENCE).close()
    except (OSError, OverflowError):
        return False
    return True


def _no_cluster(cluster: ClusterSettings, address: str, reason: str) -> str:
    """That no cluster answers, with the remedy for where the address comes from."""
    if cluster.address is not None:
        return (
            f"cluster.address={address!r}: no Ray cluster answers ({reason}). Start one with `ray start`, or "
            "leave cluster.address empty for a local one."
        )
    return (
        f"RAY_ADDRESS={address!r}: no Ray cluster answers ({reason}). Start one with `ray start`, correct RAY_ADDRESS, or "
        "`unset RAY_ADDRESS` for a local one."
    )


@contextmanager
def connect(cluster: ClusterSettings) -> Iterator[None]:
    """Connect to Ray within the block. An existing session is used and left open. Raises ValueError when no cluster can be reached or started."""
    if ray.is_initialized():
        yield
        return
    allocator.limit_arenas()
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # a local cluster is not preempted: saves an actor per fit
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    elif not answers(address):
        raise ValueError(_no_cluster(cluster, address, f"no connection within {PATIENCE:g} s"))
    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else cluster.num_cpus,
            logging_level=logging.WARNING,
            log_to_driver=cluster.worker_logs,
        )
    except ConnectionError as error:
        raise ValueError(_no_cluster(cluster, str(address), str(error))) from None
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray has no exception class for it
            raise
        raise ValueError(
            "Ray did not start within 30 s: the host is busy or short of memory (`top`, `free`). Run the same command again later, or set "
            "cluster.address to a running cluster."
        ) from error
    quieten_ray_loggers()
    try:
        yield
    finally:
        ray.shutdown()


def quieten_ray_loggers() -> None:
    """Let the libraries of Ray log only warnings and errors in this process."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
