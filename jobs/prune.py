"""Delete the steps to which no run points. Do not start a run while it works.

    python -m jobs.prune STORE [--dry-run]

A step is kept while any run under STORE/runs points to it; delete a run's folder first to give up what only that run uses.
"""

import argparse

from engine.ground.prune import find_unused_steps
from jobs import command


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.prune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("--dry-run", action="store_true", help="say what would be deleted, delete nothing")
    arguments = parser.parse_args()
    store = command.open_store(arguments.store)
    found = find_unused_steps(store)
    for name in found:
        print(f"{'would delete' if arguments.dry_run else 'deleting'} {name}")
        if not arguments.dry_run:
            store.fs.delete_dir(f"{store.root}/steps/{name}")
    print(f"{len(found)} steps to which no run points")


if __name__ == "__main__":
    command.run(main)
