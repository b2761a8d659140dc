"""Number of images per class above each threshold and under a quota K, without selecting or predicting anything.

    python -m jobs.preview STORE predict-0123456789abcdef --thresholds 0.5 0.9 0.99 --per-class 5000

--plot writes the curves of all thresholds as an SVG. The first preview of a predict step builds its score histograms; later ones reuse them.
"""

import argparse

from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.steps import read_output
from engine.models.fetch import teacher_classes
from engine.report.console import Console
from engine.report.figures import preview_svg
from engine.report.preview import preview_table, preview_thresholds
from engine.report.table import WIDTH
from engine.select.histogram_step import best_histogram
from jobs import cli

THRESHOLDS = (0.3, 0.5, 0.7, 0.9, 0.95, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.preview", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("predictions", help="a finished predict step of the store (predict-…)")
    parser.add_argument(
        "--thresholds",
        type=float,
        nargs="+",
        default=THRESHOLDS,
        metavar="T",
        help="thresholds; scores must be strictly above",
    )
    parser.add_argument("--per-class", type=int, metavar="K", help="keep at most the K best of each class")
    parser.add_argument("--score", choices=("max_probability", "margin", "entropy"), default="max_probability")
    parser.add_argument("--plot", metavar="SVG", help="path or URI of a plot to write")
    parser.add_argument(
        "--classes", type=int, default=30, metavar="N", help="show the N classes with the fewest images"
    )
    arguments = parser.parse_args()
    store = cli.open_store(arguments.store)
    if arguments.per_class is not None and arguments.per_class < 1:
        raise ValueError(f"--per-class {arguments.per_class}: must be at least 1")
    predictions = read_output(store, arguments.predictions)
    if predictions is None or not predictions.step.startswith("predict-"):
        raise ValueError(
            f"{arguments.predictions}: not a finished predict step of {arguments.store};"
            f" `python -m jobs.status {arguments.store}` lists the steps"
        )
    classes = teacher_classes(store, predictions)
    best = best_histogram(store, predictions, len(classes), arguments.score)
    outcomes = preview_thresholds(best, arguments.thresholds, arguments.per_class)
    if arguments.plot:
        fs, path = storage.resolve(arguments.plot)
        storage.put(fs, path, preview_svg(classes.names, best, arguments.per_class).encode())
        log_event("plot", arguments.plot)
    console = Console(width=max(WIDTH, Console().width))
    console.print(preview_table(classes.names, best.total, outcomes, arguments.classes))


if __name__ == "__main__":
    cli.run(main)
