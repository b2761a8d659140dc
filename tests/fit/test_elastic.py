"""An elastic fit on two raylets: one is taken away in the middle and another comes."""

import json
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from engine.fit.trainer import train_workers
from engine.settings.cluster import ClusterSettings
from tests.driver import started
from tests.small_run import small_tree, write_config

PATIENCE = 600.0
JOB = "import sys; from engine.fit import trainer; trainer.RESIZE_SECONDS = 5.0; from jobs import self_train; self_train.main()"


def test_a_fit_is_elastic_when_it_may_have_fewer_workers() -> None:
    gpus = {"CPU": 32.0, "GPU": 3.0}
    assert train_workers(ClusterSettings(train={"workers": 4}), gpus).use_gpu is False
    elastic = train_workers(ClusterSettings(train={"workers": 4, "min_workers": 2}), gpus)
    assert (elastic.num_workers, elastic.use_gpu) == ((2, 4), True)
    assert train_workers(ClusterSettings(train={"workers": 4, "min_workers": 4}), gpus).num_workers == 4
    with pytest.raises(ValueError, match="min_workers is 5, more than workers, 4"):
        ClusterSettings(train={"workers": 4, "min_workers": 5})


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_raylet_goes_and_another_comes(digits: Path, tmp_path: Path) -> None:
    """The fit goes on at its checkpoint with one worker, then again with two, to its end."""
    store, log = tmp_path / "store", tmp_path / "driver.log"
    tree = small_tree(digits, str(store), recipe="supervised", student=None)
    tree["fits"]["teacher"] |= {"steps": 2000, "checkpoint_every": 50, "log_every": 25}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        lost = cluster.add_node(num_cpus=1)
        elastic = {"address": cluster.address, "train": {"workers": 2, "min_workers": 1, "cpus": 1}}
        config = write_config(tmp_path / "config.yaml", {**tree, "cluster": elastic})
        curve = store / "runs/run/metrics/teacher-fit.jsonl"
        with started([sys.executable, "-c", JOB, str(config)], log) as process:
            wait(lambda: reached(curve, 2, 50), process, log)
            cluster.remove_node(lost, allow_graceful=False)
            wait(lambda: reached(curve, 1, 50), process, log)
            cluster.add_node(num_cpus=1)
            assert process.wait(timeout=PATIENCE) == 0, log.read_text()[-5000:]
    finally:
        cluster.shutdown()
    rows = read(curve)
    assert [workers for workers, _ in groupby(row["workers"] for row in rows)] == [2, 1, 2]
    assert [row["step"] for row in rows] == list(range(25, 2001, 25)), "a part of the way is missing"
    report = json.loads((store / "runs/run/metrics.json").read_text())
    assert report["generations"][0]["test"]["value"] > 0.5


def read(curve: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in curve.read_text().splitlines()] if curve.exists() else []


def reached(curve: Path, workers: int, step: int) -> bool:
    """Whether `workers` got beyond a checkpoint at `step`."""
    return any(row["workers"] == workers and row["step"] > step for row in read(curve))


def wait(until: Callable[[], bool], process: Popen[str], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert process.poll() is None, f"ended before that:\n{log.read_text()[-5000:]}"
        assert time.monotonic() < deadline, f"it never happened:\n{log.read_text()[-5000:]}"
        time.sleep(0.1)
