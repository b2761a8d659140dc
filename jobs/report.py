"""The page of a run: one HTML file that opens offline, with the verdict, scores, pseudo-labels, pictures, data, cost and lineage.

    python -m jobs.report STORE RUN --out run.html
    python -m jobs.report STORE RUN --out run.html --follow     writes it again and again until the run has a result

Reads only the store and, for the pictures, the images of the pool; during the run or later, on any machine. `jobs.self_train` writes the same page
into the folder of its run.
"""

import argparse
import time
from pathlib import Path

from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.steps import Store
from engine.report.page.page import make_page
from engine.report.page.render import render_page, size
from engine.report.page.thumbnails import PictureBudget
from jobs import cli

FOLLOW_SECONDS = 30


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="folder or URI of the store")
    parser.add_argument("run", help="name of a run")
    parser.add_argument("--out", default=None, help="HTML file to write (default: RUN.html)")
    parser.add_argument(
        "--picture-seconds",
        type=float,
        default=PictureBudget.seconds,
        help=f"longest time to read pictures; 0: a page without pictures (default: {PictureBudget.seconds:g})",
    )
    parser.add_argument(
        "--follow",
        type=int,
        nargs="?",
        const=FOLLOW_SECONDS,
        metavar="SECONDS",
        help=f"write the page again every SECONDS until the run has a result; an open browser follows (default: {FOLLOW_SECONDS})",
    )
    arguments = parser.parse_args()
    if arguments.picture_seconds < 0:
        raise ValueError(f"--picture-seconds {arguments.picture_seconds:g}: a time is 0 or more.")
    out = Path(arguments.out or f"{arguments.run}.html")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist. Create it, or choose another.")
    if arguments.follow is not None and arguments.follow < 1:
        raise ValueError(f"--follow {arguments.follow}: the time between two pages is at least 1 second.")
    store = cli.open_store(arguments.store)
    while not write(store, arguments.run, out, arguments.picture_seconds, arguments.follow):
        time.sleep(arguments.follow)


def write(store: Store, run: str, out: Path, picture_seconds: float, follow: int | None) -> bool:
    """Write the page once, put whole; returns whether there is nothing more to follow."""
    page = make_page(store, run, PictureBudget(picture_seconds))
    is_last = follow is None or (page.verdict.value is not None and page.verdict.value.is_finished)
    text = render_page(page, None if is_last else follow).encode()
    storage.put(*storage.resolve(str(out)), text)
    log_event("report", f"{out} ({size(len(text))})")
    return is_last


if __name__ == "__main__":
    cli.run(main)
