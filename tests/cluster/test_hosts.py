"""A cluster of hosts with networks of their own: the main job sent from outside, a host lost in labelling, another in training, the driver killed."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.hosts import Hosts, can_be_made, hosts
from tests.driver import started
from tests.small_run import small_tree
from tests.test_kill_and_resume import rows, steps

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not can_be_made(), reason="network namespaces need root and iproute2"),
]

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0
LABELS = ("teacher fit", "generation 1 predict", "generation 1 select", "generation 1 gather", "generation 1 fit")


@dataclass(frozen=True)
class RayCluster:
    """A head without work and workers of two CPUs, all with one token."""

    hosts: Hosts
    folder: Path
    head: str
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        return f"http://{self.head}:8265"

    def add(self, name: str) -> None:
        address = self.hosts.add(name)
        self._ray(name, f"--address={self.head}:6379", "--num-cpus=2", f"--node-ip-address={address}")

    def start_head(self) -> None:
        listening = ["--port=6379", "--dashboard-host=" + self.head, f"--node-ip-address={self.head}"]
        self._ray("head", "--head", "--num-cpus=0", *listening)

    def _ray(self, name: str, *options: str) -> None:
        ray = str(Path(sys.executable).parent / "ray")
        own = f"--temp-dir={self.folder / name}"  # with the job's files in it: hosts share the store and nothing else
        command = [ray, "start", "--block", "--object-store-memory=100000000", own, *options]
        self.hosts.start(name, command, self.environment, self.folder / f"{name}.log")

    def alive(self) -> int:
        """Nodes that the head knows to be alive."""
        asked = f"from ray.util.state import list_nodes; print(sum(n.state == 'ALIVE' for n in list_nodes({self.address!r})))"
        said = subprocess.run(
            [sys.executable, "-c", asked], env=dict(self.environment), capture_output=True, text=True, check=False
        )
        return int(said.stdout) if said.returncode == 0 else 0


@contextmanager
def cluster(folder: Path) -> Iterator[RayCluster]:
    (folder / "token").write_text("0123456789abcdef" * 4)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "300",
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # jobs run what is called python there
        "PYTHONPATH": str(ROOT),
    }
    with hosts() as made:
        one = RayCluster(made, folder, made.add("head"), environment)
        one.start_head()
        wait(lambda: listens(one.head, 8265), folder / "head.log")
        for name in ("a", "b"):
            one.add(name)
        wait(lambda: one.alive() == 3, folder / "head.log")
        yield one


def listens(host: str, port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((host, port)) == 0


def wait(until: Callable[[], bool], log: Path, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert process is None or process.poll() is None, f"ended before that:\n{log.read_text()[-5000:]}"
        assert time.monotonic() < deadline, f"it never happened:\n{log.read_text()[-5000:]}"
        time.sleep(0.005)


def test_the_main_job_survives_the_loss_of_hosts_and_of_its_driver(digits: Path, tmp_path: Path) -> None:
    folder = Path(f"/tmp/st-{os.getpid()}")  # Ray's sockets have no room for long paths
    (folder / "w").mkdir(parents=True)
    try:
        for part in ("engine", "jobs"):
            shutil.copytree(ROOT / part, folder / "w" / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("whole", "broken"):
            (folder / "w" / f"{name}.yaml").write_text(yaml.safe_dump(settings(digits, tmp_path / name)))
        with cluster(folder) as one:
            undisturbed_and_disturbed(one, tmp_path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    for label in LABELS:
        assert steps(broken)[label].step == steps(whole)[label].step, f"{label} went another way"
    for label in LABELS[1:4]:
        assert rows(broken, steps(broken)[label].step) == rows(whole, steps(whole)[label].step), label


def settings(digits: Path, store: Path) -> dict[str, Any]:
    tree = small_tree(digits, str(store))
    tree["data"]["rows_per_shard"] = 4
    tree["fits"]["student"] |= {"steps": 600, "checkpoint_every": 20}
    return tree


def undisturbed_and_disturbed(one: RayCluster, folder: Path) -> None:
    log = folder / "submit.log"
    with submitted(one, "whole", log) as process:
        assert process.wait(timeout=PATIENCE) == 0, log.read_text()[-5000:]

    broken = folder / "broken"
    with submitted(one, "broken", log) as process:
        wait(lambda: begun(broken, "generation 1 predict"), log, process)
        assert one.hosts.running("a", "predict_shards"), "the host had no work to lose"
        one.hosts.lose("a")
        predicting = steps(str(broken))["generation 1 predict"].step
        assert not (broken / "steps" / predicting / "step.json").exists(), "predict was already over"
        one.add("c")

        wait(lambda: logged(broken) >= 100, log, process)
        (place,) = [name for name in ("b", "c") if one.hosts.running(name, "RayTrainWorker")]
        one.hosts.lose(place)
        before = curve(broken)
        one.add("d")
        fitting = steps(str(broken))["generation 1 fit"].step
        assert not (broken / "steps" / fitting / "step.json").exists(), "the fit was already over"

        wait(lambda: logged(broken) > before[-1]["step"], log, process)
        (driver,) = one.hosts.running("head", "python -m jobs.self_train broken.yaml")[-1:]
        driver.kill()
        assert process.wait(timeout=PATIENCE) == 1, "a job whose driver is killed has failed"

    with submitted(one, "broken", log) as process:
        assert process.wait(timeout=PATIENCE) == 0, log.read_text()[-5000:]
    checkpoint = (before[-1]["step"] - 1) // 20 * 20  # one at the last row itself may not have been reported
    kept = [row for row in before if row["step"] <= checkpoint]
    assert len(kept) >= 8
    assert curve(broken)[: len(kept)] == kept, "the fit began anew: what it logged before the loss was logged again"


@contextmanager
def submitted(one: RayCluster, name: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "jobs.submit", "self_train", f"{name}.yaml", "--address", one.address]
    command += ["--working-dir", str(one.folder / "w")]
    with started(["env", *(f"{key}={value}" for key, value in one.environment.items()), *command], log) as process:
        yield process


def begun(store: Path, label: str) -> bool:
    """Whether the step called `label` has its first part."""
    if not (store / "runs" / "run" / "steps").exists():
        return False
    pointer = steps(str(store)).get(label)
    return pointer is not None and any((store / "steps" / pointer.step / "parts").glob("*.parquet"))


def logged(store: Path) -> int:
    """Steps of the student that are known in the store."""
    return max((row["step"] for row in curve(store)), default=0)


def curve(store: Path) -> list[dict[str, Any]]:
    path = store / "runs/run/metrics/generation-1-fit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
