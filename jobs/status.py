"""Progress of runs, read from the store alone: on any machine, during a run or after it ended.

python -m jobs.status STORE            the runs of a store
python -m jobs.status STORE RUN        the steps of a run
python -m jobs.status STORE RUN --watch    the same again and again until the run has a result
"""

import argparse
import sys
import time

from rich.live import Live
from rich.table import Table

from engine.export.files import csv_lines
from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.run import pointers
from engine.ground.steps import Store
from engine.report.console import Console
from engine.report.rejected import RejectedImage, count_rejected, rejected_images
from engine.report.status import StepStatus, step_status
from engine.report.table import WIDTH
from jobs import cli

WATCH_SECONDS = 5.0


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
    parser.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH_SECONDS,
        metavar="SECONDS",
        help=f"look again every SECONDS (default: {WATCH_SECONDS:g}) until the run has a result: one screen in a terminal, else a line per change",
    )
    arguments = parser.parse_args()
    if arguments.rejected and not arguments.run:
        raise ValueError("--rejected lists the images of one run: name it, jobs.status STORE RUN --rejected")
    if arguments.watch is not None and (not arguments.run or arguments.watch <= 0):
        raise ValueError("--watch looks at one run every few seconds, more than 0: jobs.status STORE RUN --watch 5")
    store = cli.open_store(arguments.store)
    if arguments.rejected:
        _print_rejected(store, arguments.run)
        return
    console = Console(width=max(WIDTH, Console().width))
    if arguments.watch is not None:
        watch(store, arguments.run, arguments.watch, console)
        return
    for run in [arguments.run] if arguments.run else storage.folders(store.fs, f"{store.root}/runs"):
        console.print(steps_table(run, read_steps(store, run), is_detailed=bool(arguments.run)))


def read_steps(store: Store, run: str) -> list[StepStatus]:
    """The steps of a run as they are now."""
    return [step_status(store, pointer) for pointer in pointers(store, run)]


def steps_table(run: str, steps: list[StepStatus], is_detailed: bool) -> Table:
    """A row for each step; `is_detailed`: with its rejects by reason and slowest shards."""
    table = Table(title=run, title_justify="left")
    for column in ("step", "step in the store", "state", "done", ""):
        table.add_column(column, overflow="fold")
    for status in steps:
        more = status.more if is_detailed else ()
        table.add_row(status.label, status.step, status.state, _done(status), "\n".join([status.detail, *more]))
    return table


def watch(store: Store, run: str, seconds: float, console: Console) -> None:
    """Show a run until it has a result: one screen that is drawn again in a terminal, elsewhere a plain line for each step that moved."""
    if not console.is_terminal:
        said: dict[str, str] = {}
        while not _lines(store, run, said):
            time.sleep(seconds)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            steps = read_steps(store, run)
            live.update(steps_table(run, steps, is_detailed=True), refresh=True)
            if has_result(store, run, steps):
                return
            time.sleep(seconds)


def _lines(store: Store, run: str, said: dict[str, str]) -> bool:
    """Log the steps that moved since `said`; returns whether the run has a result."""
    steps = read_steps(store, run)
    for status in steps:
        moved = f"{status.state} {_done(status)}".strip()
        if said.get(status.label) != moved:
            said[status.label] = moved
            log_event(status.label, f"{moved}  {status.detail}".strip())
    return has_result(store, run, steps)


def has_result(store: Store, run: str, steps: list[StepStatus]) -> bool:
    """Whether the run wrote its metrics and all steps that it began are done."""
    return all(one.state == "done" for one in steps) and storage.exists(
        store.fs, f"{store.root}/runs/{run}/metrics.json"
    )


def _done(status: StepStatus) -> str:
    if status.state != "working":
        return ""
    return f"{status.done}/{status.total if status.total is not None else '?'}"


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
