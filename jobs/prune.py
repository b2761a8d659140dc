"""Delete the steps that no run uses. Do not start a run meanwhile.

    python -m jobs.prune STORE [--dry-run]

A step is kept while a run in STORE/runs points to it; to delete the steps of a run, delete the folder of the run first.
"""

import argparse

from engine.ground.prune import find_unused_steps
from jobs import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.prune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("--dry-run", action="store_true", help="list the steps without deleting them")
    arguments = parser.parse_args()
    store = cli.open_store(arguments.store)
    found = find_unused_steps(store)
    for name in found:
        print(f"{'would delete' if arguments.dry_run else 'deleting'} {name}")
        if not arguments.dry_run:
            store.fs.delete_dir(f"{store.root}/steps/{name}")
    print(f"{len(found)} steps that no run uses")


if __name__ == "__main__":
    cli.run(main)
