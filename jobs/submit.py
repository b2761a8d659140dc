"""Submit a job to a cluster: settings are checked locally, the working directory is uploaded, the log is followed.

    python -m jobs.submit self_train config.yaml store=s3://bucket/store --address http://localhost:8265
    python -m jobs.submit doctor s3://bucket/store --no-wait
    python -m jobs.submit compare --address http://localhost:8265 -- a.yaml b.yaml --store s3://bucket/store

The settings are validated before anything is uploaded. The current folder is uploaded (at most 100 MiB); data and symbolic links are not. A run that
is submitted again resumes; one that is running (the same run in the same store, or the same arguments of a job without a run) is followed instead
of started twice. Ctrl-C stops following, not the job.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from engine.cluster.package import EXCLUDED, list_package
from engine.cluster.submission import Submission, connect, follow, submit
from engine.ground.progress import log_event
from engine.ground.record import fingerprint
from engine.recipes.registry import SelfTrainSettings
from engine.search.job import SearchJobSettings
from engine.settings import jobs as jobs_settings
from engine.settings.block import Block, load
from engine.settings.embed import EmbedJobSettings
from engine.settings.geo import MapJobSettings, RasteriseJobSettings, ScenesSettings, TilesJobSettings
from jobs import cli

CONFIGURED: dict[str, type[Block]] = {
    "self_train": SelfTrainSettings,
    "search": SearchJobSettings,
    "predict": jobs_settings.PredictJobSettings,
    "embed": EmbedJobSettings,
    "plan": jobs_settings.PlanJobSettings,
    "select": jobs_settings.SelectJobSettings,
    "fit": jobs_settings.FitJobSettings,
    "evaluate": jobs_settings.EvaluateJobSettings,
    "rasterise": RasteriseJobSettings,
    "tiles": TilesJobSettings,
    "map": MapJobSettings,
}
"""Jobs that take a config, and its settings class."""
PLAIN = ("doctor", "status", "prune", "preview", "explain", "export", "active")
"""Jobs with their own arguments."""
LOCAL = "http://127.0.0.1:8265"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.submit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=[*CONFIGURED, "compare", *PLAIN])
    parser.add_argument(
        "arguments", nargs="*", help="arguments of the job: its config and key=value overrides, or its own arguments"
    )
    parser.add_argument("--address", help=f"job server (default: RAY_API_SERVER_ADDRESS, else {LOCAL})")
    parser.add_argument("--no-wait", action="store_true", help="return once the job is submitted")
    parser.add_argument(
        "--working-dir", type=Path, default=Path(), help="folder to upload (default: the current folder)"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="NAME", help="name of files or folders not to upload"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="environment variable of the job"
    )
    options = parser.parse_intermixed_args()
    folder = options.working_dir.absolute()
    name = check_settings(options.job, options.arguments, folder)
    excluded = (*EXCLUDED, *options.exclude)
    upload = list_package(folder, excluded)
    upload.check_size()
    excludes = [*excluded, *upload.link_patterns]
    submission = Submission(options.job, name, options.arguments, str(folder), excludes, environment(options.env))
    address = options.address or os.environ.get("RAY_API_SERVER_ADDRESS") or LOCAL
    client = connect(address)
    log_event(
        "submit",
        f"settings are valid; uploading {len(upload.files)} files, {upload.bytes / 2**20:.1f} MiB, to {address}",
    )
    if upload.links:
        log_event(
            "submit", f"symbolic links are not uploaded: {', '.join(upload.links[:5])}{', …' * (len(upload.links) > 5)}"
        )
    job = submit(client, address, submission)
    if options.no_wait:
        log_event(
            "submit", f"to follow: the same command without --no-wait; to stop: ray job stop {job} --address {address}"
        )
        return
    try:
        status = follow(client, job)
    except KeyboardInterrupt:
        log_event("submit", f"{job} keeps running; to stop it: ray job stop {job} --address {address}")
        raise
    log_event("submit", f"{job}: {status}")
    sys.exit(0 if status == "SUCCEEDED" else 1)


def check_settings(job: str, arguments: list[str], folder: Path) -> str:
    """The name of the submission: equal for work that must not run twice at the same time. Raises ValueError for settings that cannot be used on
    another machine, before anything is uploaded."""
    if job in PLAIN:
        return f"{job}-{_short(arguments)}"
    if job == "compare":
        from jobs import compare  # imports torch, which the other jobs do not need here

        options = compare.parse_arguments(arguments)
        for config in options.configs:
            _check_inside_folder(config, folder)
        compare.check_arms(compare.arms_of(options, folder), options.budget)
        _check_store_is_shared(options.store)
        return f"compare-{options.name}-{_short(options.store.rstrip('/'))}"
    if not arguments:
        raise ValueError(f"jobs.submit {job}: the config is missing: jobs.submit {job} CONFIG [key=value …]")
    config, *overrides = arguments
    _check_inside_folder(config, folder)
    settings = load(CONFIGURED[job], folder / config, overrides)
    if isinstance(settings, ScenesSettings):
        return f"{job}-{_short(settings.out.rstrip('/'))}"
    store = str(getattr(settings, "store"))  # noqa: B009
    _check_store_is_shared(store)
    # a plan writes nothing that another could overwrite, and its run has a default name
    work = settings.model_dump(mode="json") if job == "plan" else store.rstrip("/")
    return f"{job}-{getattr(settings, 'run')}-{_short(work)}"  # noqa: B009


def _short(work: Any) -> str:
    """8 hex digits of the work's fingerprint."""
    return fingerprint({"work": work})[:8]


def _check_inside_folder(config: str, folder: Path) -> None:
    if Path(config).is_absolute() or not (folder / config).resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"{config}: only files in {folder} are uploaded: give the config's path relative to that folder"
        )
    if (folder / config).resolve() != folder.resolve() / os.path.normpath(config):
        raise ValueError(f"{config}: symbolic links are not uploaded: replace it by a regular file")


def _check_store_is_shared(store: str) -> None:
    if "://" not in store and not Path(store).is_absolute():
        raise ValueError(
            f"store={store!r} is relative to the job's own folder, which is deleted after the job: use a URI, or an absolute path on all nodes"
        )


def environment(pairs: list[str]) -> dict[str, str]:
    """KEY=VALUE pairs as a mapping."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"--env {pair}: write it as KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


if __name__ == "__main__":
    cli.run(main)
