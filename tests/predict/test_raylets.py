"""Labelling on several raylets of one machine: one is killed hard in the middle, then an actor, then the driver."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from engine.ground.steps import Store, read_output, read_tables
from tests.driver import started
from tests.predict.test_shard_predictor import teacher as teacher  # the fixture

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

PATIENCE = 500.0
"""Seconds for one scene on a machine that does other things too."""


class Scene:
    """A store, and a driver that labels the digits into it on a cluster."""

    def __init__(self, folder: Path, digits: Path, teacher: Path, rows_per_shard: int = 16) -> None:
        self.folder, self.store, self.marked = folder, folder / "store", folder / "marks"
        self.marked.mkdir(parents=True)
        self.asked: dict[str, Any] = {
            "store": str(self.store),
            "teacher": str(teacher),
            "pool": str(digits / "pool.parquet"),
            "rows_per_shard": rows_per_shard,
            "marks": str(self.marked),
        }
        self.log = folder / "driver.log"

    @contextmanager
    def driver(
        self, address: str, seconds: float, together: bool = False, **cluster: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """The labelling as a process of its own, which does not outlive the block. `together`: no worker begins before all are there."""
        asked = {**self.asked, "seconds": seconds, "together": together, "cluster": {"address": address, **cluster}}
        command = [sys.executable, "-m", "tests.predict.on_raylets", json.dumps(asked)]
        with started(command, self.log) as process:
            yield process

    def marks(self) -> list[dict[str, Any]]:
        """The labellings begun so far, in time's order."""
        return sorted((json.loads(path.read_text()) for path in self.marked.glob("*.json")), key=lambda m: m["time"])

    def labelled_again(self) -> int:
        """Labellings beyond the first of each shard."""
        marks = self.marks()
        return len(marks) - len({mark["shard"] for mark in marks})

    def parts(self) -> set[str]:
        """Shards with a part."""
        return {path.name[5:13] for path in self.store.glob("steps/predict-*/parts/part-*.parquet")}

    def wait(self, until: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert process.poll() is None, f"ended before that:\n{self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"it never happened:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.02)

    def finish(self, process: subprocess.Popen[str]) -> None:
        assert process.wait(timeout=PATIENCE) == 0, self.log.read_text()[-6000:]

    def rows(self) -> list[dict[str, Any]]:
        (step,) = (path.name for path in self.store.glob("steps/predict-*"))
        store = Store(str(self.store))
        output = read_output(store, step)
        assert output is not None
        return [row for _, table in read_tables(output, store.fs) for row in table.to_pylist()]


@contextmanager
def raylets(count: int, **each: Any) -> Iterator[Cluster]:
    """A head and `count` - 1 more raylets."""
    cluster = Cluster(initialize_head=True, head_node_args=each)
    try:
        for _ in range(count - 1):
            cluster.add_node(**each)
        yield cluster
    finally:
        cluster.shutdown()


def test_a_raylet_an_actor_and_the_driver_are_killed(digits: Path, teacher: Path, tmp_path: Path) -> None:
    """Whatever is killed, the predictions are those of an undisturbed run, and only shards in flight are labelled again."""
    whole, broken = (Scene(tmp_path / name, digits, teacher) for name in ("whole", "broken"))
    with raylets(3, num_cpus=2) as cluster:
        with whole.driver(cluster.address, 0.0) as process:
            whole.finish(process)
        shards = len(whole.parts())
        assert shards > 60

        with broken.driver(cluster.address, 0.5) as process:
            broken.wait(lambda: len(broken.parts()) >= shards // 4, process)
            (lost, *_) = cluster.worker_nodes
            assert any(mark["node"] == lost.node_id for mark in broken.marks()), "the raylet had no work to lose"
            cluster.remove_node(lost, allow_graceful=False)
            so_far = len(broken.parts())
            broken.wait(lambda: len(broken.parts()) >= so_far + shards // 8, process)
            os.kill([mark for mark in broken.marks() if mark["node"] != lost.node_id][-1]["pid"], signal.SIGKILL)
            broken.wait(lambda: len(broken.parts()) >= so_far + shards // 4, process)
            os.kill(process.pid, signal.SIGKILL)
        assert not any(broken.store.glob("steps/predict-*/step.json")), "nothing was left to kill the driver in"
        with broken.driver(cluster.address, 0.0) as process:
            broken.finish(process)
    assert broken.rows() == whole.rows()
    assert {mark["shard"] for mark in broken.marks()} == set(range(shards))
    # two workers of the raylet, the actor, and the driver's four that were left
    assert broken.labelled_again() <= 2 + 1 + 4, "more was labelled again than was in flight"


def test_twelve_devices_on_three_raylets_share_the_shards(digits: Path, teacher: Path, tmp_path: Path) -> None:
    """Devices that are only declared: every worker has one of its own, and none has much more work than another."""
    scene = Scene(tmp_path / "scene", digits, teacher, rows_per_shard=8)
    with (
        raylets(3, num_cpus=4, num_gpus=4) as cluster,
        scene.driver(cluster.address, 0.5, together=True) as process,
    ):
        scene.finish(process)
    marks = scene.marks()
    devices: dict[int, set[tuple[str, str]]] = {}
    for mark in marks:
        devices.setdefault(mark["pid"], set()).update((mark["node"], device) for device in mark["devices"])
    assert len(devices) == 12
    assert all(len(own) == 1 for own in devices.values())
    assert len(set.union(*devices.values())) == 12
    each = Counter(mark["pid"] for mark in marks)
    assert scene.labelled_again() == 0
    assert max(each.values()) <= 1.5 * len(marks) / 12
    assert min(each.values()) >= 0.5 * len(marks) / 12
