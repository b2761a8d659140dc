"""Which images a person should label next: a list with keys, a budget of them for each class the teacher sees, near duplicates left out.

    python -m jobs.active STORE predict-0123456789abcdef --budget 20 --out next.csv
    python -m jobs.active STORE predict-0123456789abcdef --by disagreement --second predict-fedcba9876543210 --budget 20 --out next.csv

uncertainty: the smallest margins between the two best classes. disagreement: the most mass on which two teachers differ. diversity: of the most
uncertain, those that look least alike. No cluster is needed.
"""

import argparse
from typing import get_args

from engine.export.active import ActiveQuery, By, find_next_to_label, write
from engine.export.step_export import StepExport, open_step
from engine.ground.progress import log_event
from engine.ground.steps import Output, Store
from jobs import command


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.active", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("predictions", help="a finished predict step of the store (predict-…)")
    parser.add_argument("--by", choices=get_args(By), default="uncertainty")
    parser.add_argument("--second", help="another teacher's predict step of the same pool, for --by disagreement")
    parser.add_argument("--budget", type=int, default=20, metavar="N", help="images for each class")
    parser.add_argument("--distance", type=int, default=8, metavar="BITS", help="images this near are one")
    parser.add_argument("--out", required=True, help="path or URI of a new .csv or .parquet file")
    arguments = parser.parse_args()
    store = command.open_store(arguments.store)
    if arguments.budget < 1:
        raise ValueError(f"--budget {arguments.budget}: at least one image a class")
    if not 0 <= arguments.distance < 64:
        raise ValueError(f"--distance {arguments.distance}: perceptual hashes differ in 0 to 63 bits; 8 is usual")
    predictions = open_step(store, arguments.predictions)
    if predictions.verb != "predict":
        raise ValueError(f"{arguments.predictions}: not a predict step; a selection holds what the teacher is sure of")
    table = find_next_to_label(
        predictions,
        ActiveQuery(arguments.by, arguments.budget, arguments.distance),
        _second(store, predictions, arguments.by, arguments.second),
    )
    write(table, arguments.out)
    log_event("done", f"{table.num_rows} images in {arguments.out}")


def _second(store: Store, predictions: StepExport, by: By, step: str | None) -> Output | None:
    """The other teacher's predictions. Raises ValueError where they are missing or of another pool or class list."""
    if (by == "disagreement") != (step is not None):
        raise ValueError("--by disagreement compares two teachers: give --second with it, and only with it")
    if step is None:
        return None
    other = open_step(store, step)
    if other.verb != "predict" or other.manifest.digest != predictions.manifest.digest:
        raise ValueError(f"{step}: not a predict step of the pool that {predictions.output.step} labelled")
    predictions.classes.check_same(other.classes, step)
    return other.output


if __name__ == "__main__":
    command.run(main)
