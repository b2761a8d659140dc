"""Shared by all jobs: a config with dotted overrides on the command line, and user errors as one paragraph."""

import argparse
import sys
from collections.abc import Callable

from engine.ground import storage
from engine.ground.budget import TooManyRejectsError
from engine.ground.failures import StalledError, classify_worker_error
from engine.ground.progress import log_event, printable
from engine.ground.steps import Store
from engine.settings.block import Block
from engine.settings.credentials import hide_credentials
from engine.settings.describe import help_text

USER_ERRORS = (ValueError, FileNotFoundError, PermissionError, TooManyRejectsError, StalledError)
"""Errors that the user can fix, printed as one paragraph. All others are bugs or failures of the cluster and keep their traceback."""


def parser(job: str, description: str, kind: type[Block]) -> argparse.ArgumentParser:
    """A parser with CONFIG and key=value overrides; its help lists the settings of `kind`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m jobs.{job}",
        description=description,
        epilog=help_text(kind),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="YAML file of settings; examples: jobs/configs/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="override settings of the file, e.g. fits.student.lr=0.05 data.pool=/images",
    )
    return parser


def open_store(uri: str) -> Store:
    """The existing store at a folder or URI. Raises FileNotFoundError when there is none."""
    store = Store(uri)
    if not storage.exists(store.fs, f"{store.root}/store.json"):
        raise FileNotFoundError(f"{uri}: not a store. Check the path or URI.")
    return store.open()


def run(main: Callable[[], None]) -> None:
    """Run the main function of a job; a user error ends it with one paragraph and exit code 2."""
    try:
        main()
    except USER_ERRORS as error:
        print(hide_credentials(f"\nerror: {printable(str(error))}"), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        failure = classify_worker_error(error, "the store")
        if failure.kind != "store":
            raise
        print(hide_credentials(f"\nerror: {printable(failure.detail)}"), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        log_event("stopped", "run the same command again to resume")
        sys.exit(130)
