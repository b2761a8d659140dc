"""The connection to Ray: a cluster when an address is given or set, else an embedded local one that listens on this machine only."""

import logging
import os
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
"""Loggers whose warnings say that what we chose was chosen."""


@contextmanager
def connect(cluster: ClusterSettings) -> Iterator[None]:
    """Connect to Ray for the length of a `with` block. A session that exists already is used and left as it is."""
    if ray.is_initialized():
        yield
        return
    allocator.few_arenas()
    for name in SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        os.environ.setdefault(
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0"
        )  # nobody preempts a laptop: an actor less a fit
    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else cluster.num_cpus,
            logging_level=logging.WARNING,
            log_to_driver=cluster.worker_logs,
        )
    except ConnectionError as error:
        raise ValueError(
            f"no Ray cluster answers at {address!r}: start one with `ray start`, or leave cluster.address empty for a local one ({error})"
        ) from None
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray has no class for it
            raise
        raise ValueError(
            "Ray did not start within 30 s: this machine is busy or short of memory (`top`, `free`); run the same command again when it is "
            "quieter, or give the address of a cluster that runs (cluster.address)"
        ) from error
    quieten_ray_loggers()
    try:
        yield
    finally:
        ray.shutdown()


def quieten_ray_loggers() -> None:
    """Ray's libraries say in this process what goes wrong, and nothing else."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
