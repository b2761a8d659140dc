"""Submission of jobs: uploaded files, job ids, checks before the upload, and a full submission to a real cluster."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psutil
import pytest
import yaml
from ray._private.runtime_env.packaging import _zip_files
from ray.job_submission import JobDetails, JobStatus, JobType

from engine.cluster.package import EXCLUDED, list_package
from engine.cluster.submission import Attempt, Submission, choose_attempt, submit
from jobs.submit import check_settings, environment
from tests.small_run import small_tree, write_config

ROOT = Path(__file__).parents[2]


def test_what_goes_along_is_the_program_and_not_the_data(tmp_path: Path) -> None:
    for path in (
        "engine/a.py",
        "jobs/b.py",
        ".git/objects/x",
        "engine/__pycache__/a.pyc",
        "store/steps/y",
        "key.pem",
        "my/c.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("12345")
    sent = list_package(tmp_path)
    assert [path for path, _ in sent.files] == ["engine/a.py", "jobs/b.py", "my/c.txt"]
    assert sent.bytes == 15
    sent.check_size()
    with pytest.raises(ValueError, match=r"engine/a\.py \(0 MiB\).*--exclude"):
        sent.check_size(limit=14)


def test_ray_packs_the_listed_files_and_follows_no_link(tmp_path: Path) -> None:
    folder, outside = tmp_path / "w", tmp_path / "outside"
    for path in (folder / "my/a1x.txt", folder / "my/link/b.txt", folder / "photos.txt", outside / "data.bin"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    links = ("link", "my/a[1]*.txt", "my/back\\slash", "my/end ", "my/two words?", "photos")
    for place, link in enumerate(links):
        (folder / link).symlink_to(outside / "data.bin" if place % 2 else outside)
    (folder / ".venv").symlink_to(outside)
    (folder / ".gitignore").write_text("my/a1x.txt")  # what git does not keep may be the config
    sent = list_package(folder)
    assert sent.links == sorted(links)
    assert [path for path, _ in sent.files] == [".gitignore", "my/a1x.txt", "my/link/b.txt", "photos.txt"]
    packed = tmp_path / "packed.zip"
    asked = os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] != "1"  # as Ray's client does
    _zip_files(str(folder), [*EXCLUDED, *sent.link_patterns], str(packed), include_gitignore=asked)
    assert sorted(ZipFile(packed).namelist()) == [path for path, _ in sent.files]


def test_this_project_can_be_sent() -> None:
    repository = list_package(ROOT)
    repository.check_size()
    assert repository.files


def test_a_run_is_not_started_twice_and_a_dead_one_is_sent_in_again() -> None:
    assert choose_attempt("self_train-r", []) == Attempt("self_train-r-1", False)
    dead = [("self_train-r-1", "self_train-r", True), ("x", "", False)]
    assert choose_attempt("self_train-r", dead) == Attempt("self_train-r-2", False)
    alive = [*dead, ("self_train-r-2", "self_train-r", False)]
    assert choose_attempt("self_train-r", alive) == Attempt("self_train-r-2", True)
    assert choose_attempt("self_train-other", alive) == Attempt("self_train-other-1", False)


class Server:
    """Stands in for a job server on which one job runs."""

    def __init__(self, running: Submission) -> None:
        metadata = {"name": running.name}
        self.jobs = [
            JobDetails(
                type=JobType.SUBMISSION,
                submission_id=f"{running.name}-1",
                status=JobStatus.RUNNING,
                entrypoint=running.entrypoint,
                metadata=metadata,
            )
        ]

    def list_jobs(self) -> list[JobDetails]:
        return self.jobs

    def submit_job(self, submission_id: str, **_: Any) -> str:
        return submission_id


def test_following_a_job_with_other_arguments_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    runs, other, elsewhere = (
        Submission("self_train", name, ["c.yaml", *overrides], "/w", [])
        for name, overrides in (("n", []), ("n", ["select.threshold=0.5"]), ("m", []))
    )
    client: Any = Server(runs)
    assert submit(client, "there", runs) == "n-1"
    assert "following it" in capsys.readouterr().out
    assert submit(client, "there", other) == "n-1"
    assert "following python -m jobs.self_train c.yaml; yours were not submitted" in capsys.readouterr().out
    assert submit(client, "there", elsewhere) == "m-1"


def test_what_is_another_work_has_another_name(tmp_path: Path) -> None:
    write_config(tmp_path / "config.yaml", small_tree(tmp_path, "s3://bucket/store"))
    plan = {"model": "/m", "images": {"uri": "/p"}, "store": "/s"}
    write_config(tmp_path / "plan.yaml", plan)

    def name(job: str, *arguments: str) -> str:
        return check_settings(job, list(arguments), tmp_path)

    run = name("self_train", "config.yaml")
    assert re.fullmatch(r"self_train-run-[0-9a-f]{8}", run)
    assert run == name("self_train", "config.yaml", "store=s3://bucket/store/", "select.threshold=0.5")
    assert run != name("self_train", "config.yaml", "store=s3://bucket/other")
    for job, one, other in (
        ("export", ["/s", "predict-1", "--out", "a.csv"], ["/s", "predict-2", "--out", "b.csv"]),
        ("doctor", ["/s"], ["/t"]),
        ("plan", ["plan.yaml"], ["plan.yaml", "model=/n"]),
    ):
        assert name(job, *one) == name(job, *one) != name(job, *other)
        assert name(job, *one).startswith(f"{job}-")


def test_the_entrypoint_is_quoted_and_the_environment_complete() -> None:
    sent = Submission("self_train", "n", ["c.yaml", "data.pool=s3://b/my photos"], "/w", [".git"], {"A": "1"})
    assert sent.entrypoint == "python -m jobs.self_train c.yaml 'data.pool=s3://b/my photos'"
    assert sent.runtime_env()["env_vars"]["A"] == "1"
    assert environment(["A=b=c"]) == {"A": "b=c"}
    with pytest.raises(ValueError, match="KEY=VALUE"):
        environment(["A"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the config is missing"),
        (["config.yaml", "select.treshold=0.5"], "did you mean 'threshold'?"),
        (["config.yaml", "store=store"], "use a URI, or an absolute path on all nodes"),
        (["../config.yaml"], "relative to that folder"),
        (["/config.yaml"], "relative to that folder"),
        (["none.yaml"], "no such config"),
        (["link.yaml"], "symbolic links are not uploaded"),
    ],
)
def test_what_cannot_run_there_is_refused_here(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_config(tmp_path / "config.yaml", small_tree(tmp_path, "s3://bucket/store"))
    (tmp_path / "link.yaml").symlink_to(tmp_path / "config.yaml")
    assert check_settings("self_train", ["config.yaml"], tmp_path).startswith("self_train-run-")
    with pytest.raises(ValueError, match=re.escape(message)):
        check_settings("self_train", arguments, tmp_path)


def test_a_comparison_is_checked_arm_by_arm(tmp_path: Path) -> None:
    for name, data in (("a", "d"), ("b", "d"), ("c", "other")):
        write_config(tmp_path / f"{name}.yaml", small_tree(tmp_path / data, "store"))
    there = ["--store", "s3://bucket/store", "--name", "n"]
    assert check_settings("compare", ["a.yaml", "b.yaml", *there], tmp_path).startswith("compare-n-")
    for arguments, message in (
        (["a.yaml", "c.yaml", *there], "c cannot be compared with a"),
        (["a.yaml", "b.yaml"], "use a URI, or an absolute path on all nodes"),
        (["a.yaml", "../b.yaml", *there], "relative to that folder"),
        (["a.yaml", *there, "--budget", "10"], "over the budget of 10"),
        (["a.yaml", *there, "--set", "select.treshold=1"], "did you mean 'threshold'?"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            check_settings("compare", arguments, tmp_path)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A head of our own with token authentication, on ports of its own; yields its dashboard's address and the environment of who has the token."""
    port, dashboard = free_port(), free_port()
    (folder / "token").write_text("0123456789abcdef" * 4)
    without = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    without |= {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
        "HOME": str(folder / "nobody"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # jobs run what is called python there
    }
    environment = {**without, "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "PYTHONPATH": str(ROOT)}
    ray = str(Path(sys.executable).parent / "ray")
    command = [
        ray,
        "start",
        "--head",
        "--block",
        f"--port={port}",
        f"--dashboard-port={dashboard}",
        "--dashboard-host=127.0.0.1",
    ]
    command += [
        "--num-cpus=2",
        f"--temp-dir={folder / 'r'}",
        f"--ray-client-server-port={free_port()}",
        f"--dashboard-agent-listen-port={free_port()}",
        "--node-ip-address=127.0.0.1",
    ]
    with open(folder / "head.log", "w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(dashboard, head, folder / "head.log")
        yield f"http://127.0.0.1:{dashboard}", environment
    finally:
        family = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
        named = [
            one for one in psutil.process_iter(["cmdline"]) if str(folder / "r") in " ".join(one.info["cmdline"] or [])
        ]
        head.kill()
        for process in (*family, *named):  # a head that dies leaves its children behind, some under another name
            with suppress(psutil.NoSuchProcess):
                process.kill()
        head.wait()


def wait_for(port: int, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        assert head.poll() is None, log.read_text()[-3000:]
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    pytest.fail("the head's dashboard did not come up")


def run(arguments: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.submit", *arguments]
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, cwd=folder, text=True, capture_output=True, timeout=900, check=False
    )


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(2400)
def test_jobs_on_a_cluster_with_a_token(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    short = Path(f"/tmp/st-{os.getpid()}")  # Ray's sockets have no room for long paths
    short.mkdir()
    try:
        folder = short / "w"
        for part in ("engine", "jobs", "tests"):
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        store = tmp_path_factory.mktemp("shared") / "store"
        tree: dict[str, Any] = small_tree(digits, str(store))
        (folder / "config.yaml").write_text(yaml.safe_dump(tree))
        with cluster(short) as (address, environment):
            arguments = ["self_train", "config.yaml", "--address", address]
            wrong = run([*arguments, "select.treshold=0.5"], environment, folder)
            assert wrong.returncode == 2
            assert "did you mean 'threshold'?" in wrong.stderr

            without_token = {key: value for key, value in environment.items() if key != "RAY_AUTH_TOKEN_PATH"}
            refused = run(arguments, without_token, folder)
            assert refused.returncode == 2, refused.stderr
            assert "token" in refused.stderr
            guessed = run(arguments, {**without_token, "RAY_AUTH_TOKEN": "f" * 64}, folder)
            assert guessed.returncode == 2, guessed.stderr
            assert "refuses" in guessed.stderr
            assert not store.exists(), "something ran although it was refused"

            first = run(arguments, environment, folder)
            assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
            assert "the model to use" in first.stdout, "the log was not followed"
            again = run(arguments, environment, folder)
            assert again.returncode == 0, again.stdout[-3000:]
            assert re.search(r"self_train-run-[0-9a-f]{8}-2: ", again.stdout), again.stdout[-3000:]
            assert " done in " not in again.stdout, "a finished run computed something again"

            failing = run([*arguments, "data.pool=/none", "run=fails"], environment, folder)
            assert failing.returncode == 1
            assert "/none" in failing.stdout
            sick = run(["doctor", str(store), "--address", address], environment, folder)
            assert sick.returncode == 0, sick.stdout[-3000:]
            assert "by token" in sick.stdout
            sent = run(["doctor", str(store), "--address", address, "--no-wait"], environment, folder)
            assert sent.returncode == 0
            assert "follow it" in sent.stdout
    finally:
        shutil.rmtree(short, ignore_errors=True)
