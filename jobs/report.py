"""The page of a run: one HTML file that opens offline, with the verdict, scores, pseudo-labels, pictures, data, cost and lineage.

    python -m jobs.report STORE RUN --out run.html

Reads only the store and, for the pictures, the images of the pool; during the run or later, on any machine. `jobs.self_train` writes the same page
into the folder of its run.
"""

import argparse
from pathlib import Path

from engine.ground.progress import log_event
from engine.report.page.page import make_page
from engine.report.page.render import render_page, size
from engine.report.page.thumbnails import PictureBudget
from jobs import cli


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
    arguments = parser.parse_args()
    if arguments.picture_seconds < 0:
        raise ValueError(f"--picture-seconds {arguments.picture_seconds:g}: a time is 0 or more.")
    out = Path(arguments.out or f"{arguments.run}.html")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist. Create it, or choose another.")
    page = make_page(cli.open_store(arguments.store), arguments.run, PictureBudget(arguments.picture_seconds))
    written = out.write_bytes(render_page(page).encode())
    log_event("report", f"{out} ({size(written)})")


if __name__ == "__main__":
    cli.run(main)
