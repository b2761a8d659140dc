"""Progress of runs, read from the store alone: on any machine, during a run or after it ended.

python -m jobs.status STORE            the runs of a store
python -m jobs.status STORE RUN        the steps of a run
"""

import argparse

from rich.table import Table

from engine.ground import storage
from engine.ground.run import pointers
from engine.report.console import Console
from engine.report.status import step_status
from engine.report.table import WIDTH
from jobs import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.status", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("run", nargs="?", help="name of a run")
    arguments = parser.parse_args()
    store = cli.open_store(arguments.store)
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


if __name__ == "__main__":
    cli.run(main)
