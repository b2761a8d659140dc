"""What all jobs share: a config with dotted overrides on the command line, and errors that are sentences."""

import argparse
import sys
from collections.abc import Callable

from engine.ground import storage
from engine.ground.budget import TooManyRejectsError
from engine.ground.failures import StalledError, classify_worker_error
from engine.ground.progress import log_event
from engine.ground.steps import Store
from engine.settings.block import Block
from engine.settings.describe import help_text

MISTAKES = (ValueError, FileNotFoundError, PermissionError, TooManyRejectsError, StalledError)
"""What a person can mend: shown as one paragraph. Anything else is a bug of ours or of the cluster and keeps its traceback."""


def parser(job: str, description: str, kind: type[Block]) -> argparse.ArgumentParser:
    """A parser with CONFIG and key=value overrides; its help lists the settings of `kind`."""
    made = argparse.ArgumentParser(
        prog=f"python -m jobs.{job}",
        description=description,
        epilog=help_text(kind),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("config", help="YAML file of settings; examples stand in jobs/configs/")
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace those of the file, e.g. fits.student.lr=0.05 data.pool=/images",
    )
    return made


def open_store(uri: str) -> Store:
    """The store at a folder or URI, for jobs that read one. Raises FileNotFoundError when there is none."""
    store = Store(uri)
    if not storage.exists(store.fs, f"{store.root}/store.json"):
        raise FileNotFoundError(f"{uri}: no store here")
    return store.open()


def run(main: Callable[[], None]) -> None:
    """Run a job's main; a person's mistake ends it with one paragraph and exit code 2."""
    try:
        main()
    except MISTAKES as mistake:
        print(f"\nerror: {mistake}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        failure = classify_worker_error(error, "the store")
        if failure.kind != "target":
            raise
        print(f"\nerror: {failure.detail}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        log_event("stopped", "run the same command again to go on where it was")
        sys.exit(130)
