"""Submit a job to a cluster through Ray's job server and follow its log."""

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# `list_package` decides what is uploaded, git-ignored configs included
os.environ.setdefault("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
if "ray" not in sys.modules:  # Ray reads it once; set later, this process could not talk to the cluster that it starts
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # without a token nothing is submitted

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from engine.ground.progress import log_event
from engine.settings.names import check_file_name

PATIENCE = 120.0
"""Seconds for which a head that has just started may answer that its agent is not ready."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Submission:
    """A job to submit. `name` is the same for every attempt at the same work, so that it never runs twice at the same time."""

    job: str
    name: str
    arguments: list[str]
    working_dir: str
    excludes: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_file_name("submission", self.name)

    @property
    def entrypoint(self) -> str:
        return shlex.join(["python", "-m", f"jobs.{self.job}", *self.arguments])

    def runtime_env(self) -> dict[str, Any]:
        """Working directory and environment variables; everything else is in the image of the nodes."""
        variables = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1", **self.environment}
        return {"working_dir": self.working_dir, "excludes": self.excludes, "env_vars": variables}


@dataclass(frozen=True)
class Attempt:
    """The id to submit under or, if `running`, to follow."""

    id: str
    running: bool


def choose_attempt(name: str, jobs: list[tuple[str, str, bool]]) -> Attempt:
    """Whether to follow or to submit. `jobs`: (id, name, is finished) of all jobs of the cluster.

    A run that failed or was stopped is submitted again under a new id and resumes from its store; a running one is followed.
    """
    same = [(job, finished) for job, other, finished in jobs if other == name]
    alive = [job for job, finished in same if not finished]
    return Attempt(alive[-1], True) if alive else Attempt(f"{name}-{len(same) + 1}", False)


def connect(address: str) -> JobSubmissionClient:
    """Client of the job server at `address` (http://host:8265). Raises ValueError when it does not answer or refuses the token."""
    return _ask(lambda: JobSubmissionClient(address), address)


def submit(client: JobSubmissionClient, address: str, submission: Submission) -> str:
    """Submit the job, or find it running; returns its id."""
    jobs = _ask(client.list_jobs, address)
    chosen = choose_attempt(submission.name, [_id_name_finished(job) for job in jobs])
    if chosen.running:
        runs = next(job.entrypoint for job in jobs if job.submission_id == chosen.id)
        if runs == submission.entrypoint:
            log_event("submit", f"{chosen.id} is already running: following it")
        else:
            log_event(
                "submit",
                f"{chosen.id} is already running with other arguments: following {runs}; yours were not submitted",
            )
        return chosen.id
    sent = _ask(
        lambda: client.submit_job(
            entrypoint=submission.entrypoint,
            runtime_env=submission.runtime_env(),
            metadata={"name": submission.name},
            submission_id=chosen.id,
        ),
        address,
    )
    log_event("submit", f"{sent}: {submission.entrypoint}")
    return sent


def follow(client: JobSubmissionClient, job: str) -> JobStatus:
    """Print the job's log until it ends; returns its final status."""
    asyncio.run(_print_log(client, job))
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(1.0)
    return status


async def _print_log(client: JobSubmissionClient, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        sys.stdout.write(lines)
        sys.stdout.flush()


def _id_name_finished(job: JobDetails) -> tuple[str, str, bool]:
    return job.submission_id or "", (job.metadata or {}).get("name", ""), job.status.is_terminal()


def _ask(question: Callable[[], Answer], address: str) -> Answer:
    """The job server's answer; a server that is still starting is asked again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return question()
        except AuthenticationError as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{address} refused the request: {first} Put the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN (cluster/README.md)"
            ) from None
        except ConnectionError as error:
            raise ValueError(
                f"no job server answers at {address}: is the tunnel to the head's port 8265 open? ({error})"
            ) from None
        except RuntimeError as error:
            if "status code 500" not in str(error) or time.monotonic() > deadline:
                raise
            log_event("submit", "the head is still starting: retrying")
            time.sleep(5.0)
