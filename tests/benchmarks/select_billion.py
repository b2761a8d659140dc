"""A billion score rows on this machine: time, memory above idle, share of the plain read rate, and a kill in the middle.

`make` writes a finished predict step of `--rows` rows (1,000 classes, one stored class an image; 3.2 GB at a billion) and can be
killed and started again. `run` selects K = rows / (20 C) a class from it by the two passes over the disk, in one process, twice from
nothing: killed (SIGKILL) when half of the second pass is on disk and started again, and undisturbed. Both must give the same digest.
Delete the folder afterwards.

    python -m tests.benchmarks.select_billion make --folder /var/tmp/billion --rows 1e9
    python -m tests.benchmarks.select_billion run --folder /var/tmp/billion --rows 1e9
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from engine.ground.record import StepRecord
from engine.ground.steps import Output, Step, Store, read_output, read_part
from engine.labels.classes import ClassList
from engine.predict.pipeline import PARQUET
from engine.select.part_groups import (
    COUNTED,
    PART_ROWS,
    SHARE_ROWS,
    SIFTED,
    Passes,
    count_share,
    counted_shares,
    filter_share,
    forget,
    portioned,
    rank_classes,
)
from engine.select.route import pieces
from engine.select.scores import pack, scores_of
from engine.select.select import Selector
from engine.settings.select import SelectSettings
from engine.tables import schema
from tests.benchmarks.select_topk import NUM_CLASSES, block, blocks
from tests.fake_run import put_model

CLASSES = ClassList(tuple(f"class {i:04d}" for i in range(NUM_CLASSES)))


def fitted(store: Store) -> Output:
    """A model folder that only tells its classes."""
    step = store.step(StepRecord("fit", 1, {}, {"benchmark": "select"}))
    put_model(store, step.folder, CLASSES)
    step.begin()
    return step.commit([], {"model": "model"}, time.time())


def predicted(store: Store, rows: int) -> Step:
    """The predict step of `rows` rows, begun or not."""
    return store.step(StepRecord("predict", 1, {"rows": rows}, {"benchmark": "select"}))


def make(folder: Path, rows: int) -> None:
    """Write the parts that are missing and commit."""
    store = Store(str(folder / "store")).open()
    model, step = fitted(store), predicted(store, rows)
    step.begin()
    parts = step.found_parts()
    kind = schema.predictions(NUM_CLASSES, CLASSES.hash, 1)
    for index, length in blocks(rows):
        if index not in parts:
            made = block(index, length)
            table = pack(made["shard"], made["row"], made["class"][:, None], made["score"][:, None], kind)
            parts[index] = step.put_part(index, table, **PARQUET)
    size = sum(part.bytes for part in parts.values())
    step.commit(parts.values(), {"model": model.step, "images": rows}, time.time())
    print(f"{len(parts)} parts, {size / 1e9:.2f} GB, {size / rows:.2f} bytes a row")


def plain_read(store: Store, predictions: Output, sample: int = 50) -> float:
    """CPU seconds a row of reading parts back, checksums verified, and nothing else: one process, one thread."""
    parts = predictions.parts(store.fs)[:: max(1, len(predictions.parts(store.fs)) // sample)]
    started = time.process_time()
    rows = sum(len(scores_of(read_part(predictions, store.fs, part))) for part in parts)
    return (time.process_time() - started) / rows


def select_alone(folder: Path, rows: int) -> None:
    """The selection in this process: the lines that Ray's tasks run, share after share, committed as `jobs.select` would."""
    store = Store(str(folder / "store"))
    predictions = read_output(store, predicted(store, rows).name)
    assert predictions is not None, "run `make` to its end first"
    settings = SelectSettings(per_class=rows // (20 * NUM_CLASSES), targets="hard")
    empty = Selector(settings, CLASSES)
    step = store.step(StepRecord("select", 1, settings, {"predictions": predictions.digest}))
    step.begin()
    left_out = np.empty(0, np.int64)
    portions = portioned(predictions.parts(step.fs))
    passes = Passes(step, predictions, empty, len(portions))
    started = time.time()
    print("begun", flush=True)
    for unit in set(range(len(portions))) - step.sidecar_units(COUNTED):
        count_share((unit, portions[unit]), passes, left_out)
    print(f"counted {time.process_time():.0f} CPU s", flush=True)
    counted, quota, kept = counted_shares(passes)
    lowest = counted.lowest(quota)
    for unit in set(range(len(portions))) - step.sidecar_units(SIFTED):
        filter_share((unit, portions[unit]), passes, left_out, lowest)
    print(f"sifted {time.process_time():.0f} CPU s", flush=True)
    parts = step.found_parts()
    for unit, classes in enumerate(pieces(kept, PART_ROWS)):
        if unit not in parts:
            parts[unit] = rank_classes((unit, classes), passes, quota)
    print(f"ranked {time.process_time():.0f} CPU s", flush=True)
    tables = (read_part(step, step.fs, part, ["class", "score", "count"]) for part in parts.values())
    report = empty.report(tables, counted.available, counted.images)
    step.commit(parts.values(), {"selected": int(report.kept.sum()), "report": report.as_dict()}, started)
    forget(step)


class Watched:
    """A selection as a process of its own, its memory (PSS) and CPU seconds."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.log = folder / "select.log"
        self.started = time.time()
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "tests.benchmarks.select_billion", "alone", "--folder", str(folder)]
            self.process = psutil.Popen([*command, "--rows", str(rows)], stdout=log, stderr=subprocess.STDOUT)
        self.idle = self.peak = 0
        self.cpu = 0.0

    def step(self) -> None:
        """Look once."""
        try:
            now = self.process.memory_full_info().pss
            spent = self.process.cpu_times()
        except psutil.Error:
            return
        self.cpu = spent.user + spent.system
        if "begun" in self.log.read_text():
            self.peak = max(self.peak, now)
        else:
            self.idle = max(self.idle, now)
        time.sleep(0.5)

    def report(self) -> str:
        """A line of figures."""
        return (
            f"{time.time() - self.started:.0f} s, {self.cpu:.0f} CPU seconds with the start of Python, memory {self.idle / 2**20:.0f} MiB"
            f" before the first row, at most {self.peak / 2**20:.0f} MiB: {(self.peak - self.idle) / 2**20:.0f} MiB above"
        )


def chosen(folder: Path) -> Path | None:
    """The folder of the selection, when it has begun."""
    return next(iter((folder / "store" / "steps").glob("select-*")), None)


def run(folder: Path, rows: int, undisturbed: bool) -> None:
    """The selection killed in the middle and resumed; then, from nothing again, undisturbed."""
    store = Store(str(folder / "store"))
    predictions = read_output(store, predicted(store, rows).name)
    assert predictions is not None, "run `make` to its end first"
    print(
        f"plain read {plain_read(store, predictions) * rows:.0f} CPU seconds for all rows, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    shares = -(-rows // SHARE_ROWS)
    digests = []
    for how in ("killed", "resumed", "undisturbed")[: 3 if undisturbed else 2]:
        if how != "resumed" and (before := chosen(folder)):
            shutil.rmtree(before)
        watched = Watched(folder, rows)
        while watched.process.poll() is None:
            watched.step()
            made = chosen(folder)
            sifted = len(list((made / SIFTED).glob("*"))) if made is not None else 0
            if how == "killed" and sifted > shares // 2:
                os.kill(watched.process.pid, signal.SIGKILL)
                watched.process.wait()
        print(f"{how}: {watched.report()}, load {os.getloadavg()[0]:.1f}", flush=True)
        if how != "killed":
            if watched.process.returncode:
                raise RuntimeError(watched.log.read_text())
            print("  " + ", ".join(watched.log.read_text().splitlines()[1:]), flush=True)
            made = chosen(folder)
            output = read_output(store, made.name) if made is not None else None
            assert output is not None, "a selection that ends well is committed"
            digests.append((output.digest, output.summary["selected"]))
            print(f"  digest {output.digest[:16]}, {output.summary['selected']:,} pseudo-labels", flush=True)
            time.sleep(5)
    if undisturbed:
        print("the same answer" if digests[0] == digests[1] else "DIFFERENT ANSWERS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "run", "alone"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--no-undisturbed", action="store_true", help="leave out the run without a kill")
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.folder, int(arguments.rows))
    elif arguments.what == "alone":
        select_alone(arguments.folder, int(arguments.rows))
    else:
        run(arguments.folder, int(arguments.rows), not arguments.no_undisturbed)


if __name__ == "__main__":
    main()
