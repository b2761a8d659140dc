"""Start a job on a cluster from outside: checked here, sent there, followed to its end.

    python -m jobs.submit self_train config.yaml store=s3://bucket/store --address http://localhost:8265
    python -m jobs.submit doctor s3://bucket/store --no-wait
    python -m jobs.submit compare --address http://localhost:8265 -- a.yaml b.yaml --store s3://bucket/store

The settings are validated before anything is sent. The folder in which this is started goes along (below 100 MiB); data and symbolic links stay
where they are. Sent in again, a run goes on where it was; one that runs (the same run in the same store, or the same arguments of a job without a
run) is followed instead of started twice. Ctrl-C stops the following, not the job.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from engine.cluster.package import EXCLUDED, package
from engine.cluster.submission import Submission, connect, follow, submit
from engine.ground.progress import log_event
from engine.ground.steps import fingerprint
from engine.recipes.registry import SelfTrainSettings
from engine.search.job import SearchJobSettings
from engine.settings import jobs as jobs_settings
from engine.settings.block import Block, load
from jobs import command

CONFIGURED: dict[str, type[Block]] = {
    "self_train": SelfTrainSettings,
    "search": SearchJobSettings,
    "predict": jobs_settings.PredictJobSettings,
    "plan": jobs_settings.PlanJobSettings,
    "select": jobs_settings.SelectJobSettings,
    "fit": jobs_settings.FitJobSettings,
    "evaluate": jobs_settings.EvaluateJobSettings,
}
"""Jobs that take a config, and what it has to be."""
PLAIN = ("doctor", "status", "prune", "preview", "explain", "export", "active")
"""Jobs that take arguments of their own."""
LOCAL = "http://127.0.0.1:8265"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=[*CONFIGURED, "compare", *PLAIN])
    parser.add_argument("arguments", nargs="*", help="those of the job: its config and key=value, or its own")
    parser.add_argument("--address", help=f"of the job server; RAY_API_SERVER_ADDRESS, else {LOCAL}, when not given")
    parser.add_argument("--no-wait", action="store_true", help="return when the job is sent")
    parser.add_argument(
        "--working-dir", type=Path, default=Path(), help="folder that goes along; this one when not given"
    )
    parser.add_argument("--exclude", action="append", default=[], metavar="NAME", help="what stays here, by name")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="environment of the job")
    options = parser.parse_intermixed_args()
    folder = options.working_dir.absolute()
    name = checked(options.job, options.arguments, folder)
    excluded = (*EXCLUDED, *options.exclude)
    sent = package(folder, excluded).checked()
    excludes = [*excluded, *sent.kept]
    submission = Submission(options.job, name, options.arguments, str(folder), excludes, environment(options.env))
    address = options.address or os.environ.get("RAY_API_SERVER_ADDRESS") or LOCAL
    client = connect(address)
    log_event(
        "submit", f"settings are in order; {len(sent.files)} files, {sent.bytes / 2**20:.1f} MiB go along to {address}"
    )
    if sent.links:
        log_event(
            "submit", f"what is a symbolic link stays here: {', '.join(sent.links[:5])}{', …' * (len(sent.links) > 5)}"
        )
    job = submit(client, address, submission)
    if options.no_wait:
        log_event(
            "submit", f"follow it: the same command without --no-wait; stop it: ray job stop {job} --address {address}"
        )
        return
    try:
        status = follow(client, job)
    except KeyboardInterrupt:
        log_event("submit", f"{job} goes on; stop it: ray job stop {job} --address {address}")
        raise
    log_event("submit", f"{job}: {status}")
    sys.exit(0 if status == "SUCCEEDED" else 1)


def checked(job: str, arguments: list[str], folder: Path) -> str:
    """The name of the work, alike for what must not be done twice at the same time, when the job's settings can be used on another machine. Raises
    ValueError, before anything is sent."""
    if job in PLAIN:
        return f"{job}-{_short(arguments)}"
    if job == "compare":
        from jobs import compare  # and with it torch, which no other job needs here

        asked = compare.asked(arguments)
        for config in asked.configs:
            _refuse_outside(config, folder)
        compare.refuse(compare.arms_of(asked, folder), asked.budget)
        _refuse_inside(asked.store)
        return f"compare-{asked.name}-{_short(asked.store.rstrip('/'))}"
    if not arguments:
        raise ValueError(f"jobs.submit {job} takes the job's config: jobs.submit {job} CONFIG [key=value …]")
    config, *overrides = arguments
    _refuse_outside(config, folder)
    settings = load(CONFIGURED[job], folder / config, overrides)
    store = str(getattr(settings, "store"))  # noqa: B009
    _refuse_inside(store)
    # a plan leaves nothing behind that another could spoil, and its run has a name by default
    work = settings.model_dump(mode="json") if job == "plan" else store.rstrip("/")
    return f"{job}-{getattr(settings, 'run')}-{_short(work)}"  # noqa: B009


def _short(work: Any) -> str:
    """8 hex digits that tell one work from another."""
    return fingerprint({"work": work})[:8]


def _refuse_outside(config: str, folder: Path) -> None:
    if Path(config).is_absolute() or not (folder / config).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{config}: the config goes along with {folder}: give its path relative to that folder")
    if (folder / config).resolve() != folder.resolve() / os.path.normpath(config):
        raise ValueError(f"{config}: symbolic links stay here: give the config as a file of its own")


def _refuse_inside(store: str) -> None:
    if "://" not in store and not Path(store).is_absolute():
        raise ValueError(
            f"store: {store!r} would lie in the job's own folder, which is deleted with it: give a URI, or an absolute path that all nodes share"
        )


def environment(pairs: list[str]) -> dict[str, str]:
    """KEY=VALUE pairs as a mapping."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--env {pair}: write it as KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


if __name__ == "__main__":
    command.run(main)
