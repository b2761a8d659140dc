"""Active learning: list the images to label next, a number per predicted class, without near duplicates.

    python -m jobs.active STORE predict-0123456789abcdef --per-class 20 --out next.csv
    python -m jobs.active STORE predict-0123456789abcdef --by disagreement --second predict-fedcba9876543210 --per-class 20 --out next.csv

uncertainty: the smallest margins between the two best classes. disagreement: the largest probability mass on which two teachers differ.
diversity: the most dissimilar of the most uncertain images. No cluster is needed.
"""

import argparse
from typing import get_args

from engine.export.active import ActiveQuery, By, find_next_to_label, write
from engine.export.step_export import StepExport, open_step
from engine.ground.progress import log_event
from engine.ground.steps import Output, Store
from jobs import cli


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.active", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("predictions", help="a finished predict step of the store (predict-…)")
    parser.add_argument("--by", choices=get_args(By), default="uncertainty")
    parser.add_argument("--second", help="another teacher's predict step of the same pool, for --by disagreement")
    parser.add_argument("--per-class", type=int, default=20, metavar="N", help="images per class (default: 20)")
    parser.add_argument(
        "--duplicate-distance",
        type=int,
        default=8,
        metavar="BITS",
        help="Hamming distance of 64-bit perceptual hashes up to which images are near duplicates (default: 8)",
    )
    parser.add_argument("--out", required=True, help="path or URI of a new .csv or .parquet file")
    parser.add_argument(
        "--spreadsheets",
        action="store_true",
        help="CSV for Excel and its kind: an apostrophe before text that would run as a formula, and the column defused, which says so",
    )
    arguments = parser.parse_args()
    store = cli.open_store(arguments.store)
    if arguments.per_class < 1:
        raise ValueError(f"--per-class {arguments.per_class}: must be at least 1")
    if not 0 <= arguments.duplicate_distance < 64:
        raise ValueError(f"--duplicate-distance {arguments.duplicate_distance}: must be 0 to 63 bits. 8 is usual.")
    predictions = open_step(store, arguments.predictions)
    if predictions.verb != "predict":
        raise ValueError(f"{arguments.predictions}: not a predict step. A selection holds only confident predictions.")
    table = find_next_to_label(
        predictions,
        ActiveQuery(arguments.by, arguments.per_class, arguments.duplicate_distance),
        _second(store, predictions, arguments.by, arguments.second),
    )
    write(table, arguments.out, arguments.spreadsheets)
    log_event("done", f"{table.num_rows} images in {arguments.out}")


def _second(store: Store, predictions: StepExport, by: By, step: str | None) -> Output | None:
    """The predictions of the other teacher. Raises ValueError when they are missing or of another pool or class list."""
    if (by == "disagreement") != (step is not None):
        raise ValueError(
            "--by disagreement compares two teachers. Give --second with --by disagreement, and only then."
        )
    if step is None:
        return None
    other = open_step(store, step)
    if other.verb != "predict" or other.manifest.digest != predictions.manifest.digest:
        raise ValueError(f"{step}: not a predict step of the pool of {predictions.output.step}")
    predictions.classes.check_same(other.classes, step)
    return other.output


if __name__ == "__main__":
    cli.run(main)
