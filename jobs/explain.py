"""The history of one image in a run: predictions of every teacher, cuts of every selection, and the steps they depend on.

    python -m jobs.explain STORE RUN KEY

Reads only the store (and, for Parquet pools with a key column, the keys of the pool), during the run or later.
"""

import argparse

from engine.ground.progress import printable
from engine.report.explain import explain, lineage, read_history
from jobs import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("run", help="name of a run")
    parser.add_argument("key", help="key of the image: its path relative to the pool, or the value of its key column")
    arguments = parser.parse_args()
    store = cli.open_store(arguments.store)
    history = read_history(store, arguments.run)
    for line in explain(history, arguments.key):
        print(printable(line))
    last = [output for _, output in history.of("select")][-1:]
    for output in last:
        print("\nlineage of the last selection")
        for line in lineage(history, output):
            print(f"  {printable(line)}")


if __name__ == "__main__":
    cli.run(main)
