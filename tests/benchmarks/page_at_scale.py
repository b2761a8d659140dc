"""The page of a run at scale: bytes, seconds and memory at some numbers of classes and pseudo-labels. No cluster, no training.

    python -m tests.benchmarks.page_at_scale --classes 1000 --selected 100000

Memory is what the process grew by while it made the page: importing the engine takes a gigabyte by itself.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from engine.gather import arrange
from engine.report.page.page import make_page
from engine.report.page.render import render_page
from engine.settings.select import SelectSettings
from tests.report.page_run import Plan, page_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--selected", type=int, default=100_000)
    arguments = parser.parse_args()
    arrange.FEW_ROWS = 1 << 40  # the order is made by this process
    each = arguments.selected // arguments.classes
    plan = Plan(
        [f"n{number:08d} class {number}" for number in range(arguments.classes)],
        per_class=5 * each // 2,
        rows_per_shard=2048,
        select=SelectSettings(threshold=0.6, per_class=each),
    )
    with tempfile.TemporaryDirectory() as folder:
        made = page_run(Path(folder), plan)
        before, started, spent = peak(), time.time(), time.process_time()
        text = render_page(make_page(made.store, "r")).encode()
        wall, cpu = time.time() - started, time.process_time() - spent
        selected = made.selections[-1].summary["selected"]
    print(
        f"{arguments.classes:,} classes, {plan.images:,} images, {selected:,} selected:"
        f" {len(text) / 1e6:.2f} MB, {wall:.1f} s ({cpu:.1f} s of CPU), peak {peak() - before:,} MiB above {before:,} MiB"
    )


def peak() -> int:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
