"""What became of one image in a run: every teacher's prediction, every selection's cut, and the steps behind them down to the labelled set.

    python -m jobs.explain STORE RUN KEY

Reads the store alone (and, for Parquet pools with a key column, the pool's keys): while the run goes on, or years later.
"""

import argparse

from engine.report.explain import explain, lineage, read_history
from jobs import command


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("run", help="name of a run")
    parser.add_argument("key", help="the image's key: its path below the pool, or the value of its key column")
    arguments = parser.parse_args()
    store = command.open_store(arguments.store)
    told = read_history(store, arguments.run)
    for line in explain(told, arguments.key):
        print(line)
    last = [output for _, output in told.of("select")][-1:]
    for output in last:
        print("\nlineage of the last selection")
        for line in lineage(told, output):
            print(f"  {line}")


if __name__ == "__main__":
    command.run(main)
