"""Progress of runs, read from the store alone: on any machine, during a run or after it ended.

python -m jobs.status STORE            the runs of a store
python -m jobs.status STORE RUN        the steps of a run
"""

import argparse
import sys

from rich.table import Table

from engine.export.files import csv_lines
from engine.ground import storage
from engine.ground.run import pointers
from engine.ground.steps import Store
from engine.report.console import Console
from engine.report.rejected import RejectedImage, count_rejected, rejected_images
from engine.report.status import step_status
from engine.report.table import WIDTH
from jobs import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.status", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("run", nargs="?", help="name of a run")
    parser.add_argument(
        "--rejected",
        action="store_true",
        help="list the images that the run rejected or excluded, as CSV, and their counts",
    )
    arguments = parser.parse_args()
    if arguments.rejected and not arguments.run:
        raise ValueError("--rejected lists the images of one run: name it, jobs.status STORE RUN --rejected")
    store = cli.open_store(arguments.store)
    if arguments.rejected:
        _print_rejected(store, arguments.run)
        return
    for run in [arguments.run] if arguments.run else storage.folders(store.fs, f"{store.root}/runs"):
        table = Table(title=run, title_justify="left")
        for column in ("step", "step in the store", "state", "done", ""):
            table.add_column(column, overflow="fold")
        for pointer in pointers(store, run):
            status = step_status(store, pointer)
            parts = (
                f"{status.done}/{status.total if status.total is not None else '?'}"
                if status.state == "working"
                else ""
            )
            more = status.more if arguments.run else ()
            table.add_row(status.label, status.step, status.state, parts, "\n".join([status.detail, *more]))
        Console(width=max(WIDTH, Console().width)).print(table)


def _print_rejected(store: Store, run: str) -> None:
    """CSV on the standard output; the counts on the other one, so that the list can go to a file."""
    images = list(rejected_images(store, run))
    print(csv_lines(images, RejectedImage._fields).decode(), end="")
    for title, reasons in count_rejected(images).items():
        print(f"{title}: {', '.join(f'{count:,} {reason}' for reason, count in reasons.items())}", file=sys.stderr)
    if not images:
        print(f"{run}: no image was rejected", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
