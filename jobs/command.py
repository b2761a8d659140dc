"""What all jobs share: a config with dotted overrides on the command line, and errors that are sentences."""

import argparse
import sys
from collections.abc import Callable

from engine import storage
from engine.predict.budget import TooManyRejectsError
from engine.predict.failures import StalledError, of_worker
from engine.progress import say
from engine.steps import Store

MISTAKES = (ValueError, FileNotFoundError, PermissionError, TooManyRejectsError, StalledError)
"""What a person can mend: shown as one paragraph. Anything else is a bug of ours or of the cluster and keeps its traceback."""


def parser(job: str, description: str) -> argparse.ArgumentParser:
    """A parser with CONFIG and key=value overrides."""
    made = argparse.ArgumentParser(
        prog=f"python -m jobs.{job}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("config", help="YAML file of settings; examples stand in jobs/configs/")
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings that replace those of the file, e.g. student.lr=0.05 data.pool=/images",
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
        failure = of_worker(error, "the store")
        if failure.kind != "target":
            raise
        print(f"\nerror: {failure.detail}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        say("stopped", "run the same command again to go on where it was")
        sys.exit(130)
