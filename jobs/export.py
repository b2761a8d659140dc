"""Export predictions or pseudo-labels in the formats of other tools, with keys, class names and probabilities.

    python -m jobs.export STORE predict-0123456789abcdef --format csv --out labels.csv
    python -m jobs.export STORE select-0123456789abcdef --format folder --out chosen/

csv, parquet: a row per image (of a selection: per image and class). soft-csv, soft-parquet, npy: a probability per image and class, which
jobs.fit reads as soft.table. label-studio: tasks with predictions, for import. folder: links by class, or copies of images in Parquet files, tars
or object stores. No cluster is needed.
"""

import argparse

from engine.export.step_export import open_step
from engine.export.writers import FORMATS, export
from engine.ground.progress import log_event
from jobs import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("step", help="a finished predict-… or select-… step")
    parser.add_argument("--format", choices=[*FORMATS, "folder"], default="csv")
    parser.add_argument("--out", required=True, help="new path or URI")
    parser.add_argument(
        "--spreadsheets",
        action="store_true",
        help="CSV for Excel and its kind: an apostrophe before text that would run as a formula, and the column defused, which says so",
    )
    arguments = parser.parse_args()
    store = cli.open_store(arguments.store)
    rows = export(open_step(store, arguments.step), arguments.format, arguments.out, arguments.spreadsheets)
    log_event("done", f"{rows} rows in {arguments.out}")


if __name__ == "__main__":
    cli.run(main)
