"""A job sent to a cluster through Ray's job server, and followed there."""

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# what goes along is what `package` counts, a git-ignored config too
os.environ.setdefault("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
if (
    "ray" not in sys.modules
):  # Ray reads it once; changed later, it would part this process from the cluster that it starts
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # without a token nothing is sent

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from engine.ground.progress import log_event

PATIENCE = 120.0
"""Seconds in which a head that has just started may answer that its agent is not up yet."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Submission:
    """What is sent: `name` is the same for every attempt at the same work, so that it is not done twice at the same time."""

    job: str
    name: str
    arguments: list[str]
    working_dir: str
    excludes: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> str:
        return shlex.join(["python", "-m", f"jobs.{self.job}", *self.arguments])

    def runtime_env(self) -> dict[str, Any]:
        """The working directory and the environment; everything else is in the image of the nodes."""
        variables = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1", **self.environment}
        return {"working_dir": self.working_dir, "excludes": self.excludes, "env_vars": variables}


@dataclass(frozen=True)
class Attempt:
    """The id under which to submit, or, with `running`, to follow what runs already."""

    id: str
    running: bool


def attempt(name: str, jobs: list[tuple[str, str, bool]]) -> Attempt:
    """Whether to follow or to submit. `jobs`: (id, name, over) of all that the cluster knows.

    A run that failed or was stopped is sent in again under a new id, and goes on from its store; one that runs is not started twice.
    """
    same = [(job, over) for job, known, over in jobs if known == name]
    alive = [job for job, over in same if not over]
    return Attempt(alive[-1], True) if alive else Attempt(f"{name}-{len(same) + 1}", False)


def connect(address: str) -> JobSubmissionClient:
    """The job server at `address` (http://host:8265). Raises ValueError when it does not answer or refuses the token."""
    return _asked(lambda: JobSubmissionClient(address), address)


def submit(client: JobSubmissionClient, address: str, submission: Submission) -> str:
    """Send the job in, or find it running; returns its id."""
    jobs = _asked(client.list_jobs, address)
    chosen = attempt(submission.name, [_known(job) for job in jobs])
    if chosen.running:
        runs = next(job.entrypoint for job in jobs if job.submission_id == chosen.id)
        if runs == submission.entrypoint:
            log_event("submit", f"{chosen.id} is running already: following it")
        else:
            log_event(
                "submit",
                f"{chosen.id} is running already with other arguments, and yours are not sent: following {runs}",
            )
        return chosen.id
    sent = _asked(
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
    """Print the job's log as it grows, to its end; returns its last status."""
    asyncio.run(_print_log(client, job))
    while not (status := client.get_job_status(job)).is_terminal():
        time.sleep(1.0)
    return status


async def _print_log(client: JobSubmissionClient, job: str) -> None:
    async for lines in client.tail_job_logs(job):
        sys.stdout.write(lines)
        sys.stdout.flush()


def _known(job: JobDetails) -> tuple[str, str, bool]:
    return job.submission_id or "", (job.metadata or {}).get("name", ""), job.status.is_terminal()


def _asked(question: Callable[[], Answer], address: str) -> Answer:
    """The answer of the job server; a server that is still starting is asked again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return question()
        except AuthenticationError as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{address} refuses: {first} Give this machine the cluster's token, in ~/.ray/auth_token or in RAY_AUTH_TOKEN (cluster/README.md)"
            ) from None
        except ConnectionError as error:
            raise ValueError(
                f"no job server answers at {address}: is the tunnel to the head's port 8265 open? ({error})"
            ) from None
        except RuntimeError as error:
            if "status code 500" not in str(error) or time.monotonic() > deadline:
                raise
            log_event("submit", "the head is still starting: trying again")
            time.sleep(5.0)
