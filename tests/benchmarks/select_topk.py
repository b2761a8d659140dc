"""Exact top-K a class: ours against DuckDB QUALIFY and Polars on the same shuffled rows, ties included.

Every timing is a process of its own, interleaved, best of `--repeats`; memory is the peak above what the loaded rows take.
The others are given what they do best with: integer scores and the hash that breaks ties as ready columns for DuckDB, both
in one 64-bit key for Polars (a tenth of the time it takes with two columns). Ours computes them. They use every core, ours
uses one.

    python -m tests.benchmarks.select_topk --rows 50e6 --out /tmp/bench_select.md
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.select.scores import order_of, tie_hash
from engine.select.topk import TopK

NUM_CLASSES = 1000
BLOCK = 1 << 20
ROWS_PER_SHARD = 2048

Columns = dict[str, npt.NDArray[Any]]


def block(index: int, rows: int) -> Columns:
    """Rows `index` * BLOCK onwards: classes Zipf^0.5, a tenth of the teacher's scores beyond p = 0.9997, in random order."""
    random = np.random.default_rng(index)
    prior = np.cumsum(1 / np.sqrt(np.arange(1, NUM_CLASSES + 1)))
    classes = np.searchsorted(prior / prior[-1], random.random(rows)).astype(np.uint16)
    scores = random.normal(3, 4, rows).astype(np.float32).astype(np.float16)
    address = index * BLOCK + np.arange(rows)
    return {
        "class": classes,
        "score": scores,
        "shard": (address // ROWS_PER_SHARD).astype(np.int32),
        "row": (address % ROWS_PER_SHARD).astype(np.int32),
    }


def blocks(rows: int) -> list[tuple[int, int]]:
    """(index, rows) of each block."""
    return [(i, min(BLOCK, rows - i * BLOCK)) for i in range(-(-rows // BLOCK))]


def ours(columns: Columns, k: int) -> Columns:
    """The engine's, fed as shards arrive: 32 shards at a time."""
    top_k = TopK(NUM_CLASSES, k)
    names = ("class", "score", "shard", "row")
    step = 32 * ROWS_PER_SHARD
    for start in range(0, len(columns["class"]), step):
        classes, scores, shard, row = (columns[name][start : start + step] for name in names)
        top_k.update(classes, scores, shard, row)
    winners = top_k.result()
    return {"class": winners.classes, "shard": winners.shard, "row": winners.row}


def duckdb(columns: Columns, k: int) -> Columns:
    """row_number() over each class, QUALIFY <= K."""
    import duckdb as db

    rows = pa.table({name: columns[name] for name in ("class", "order", "tie", "shard", "row")})  # noqa: F841 (read by DuckDB)
    ranked = 'row_number() over (partition by class order by "order" desc, tie)'
    found = db.sql(f"select class, shard, row from rows qualify {ranked} <= {k}").to_arrow_table()
    return {name: found[name].to_numpy() for name in ("class", "shard", "row")}


def polars(columns: Columns, k: int) -> Columns:
    """top_k_by inside each class, by the 64-bit key: 48 bits of the hash are enough here."""
    import polars as pl

    rows = pl.from_arrow(pa.table({name: columns[name] for name in ("class", "key", "shard", "row")})).lazy()
    best = pl.col("shard", "row").top_k_by("key", k)
    found = rows.group_by("class").agg(best).explode("shard", "row").collect()
    return {name: found[name].to_numpy() for name in ("class", "shard", "row")}


METHODS: dict[str, Callable[[Columns, int], Columns]] = {
    "engine": ours,
    "duckdb QUALIFY": duckdb,
    "polars top_k_by": polars,
}


def checksum(winners: Columns) -> int:
    """The same for the same set of (class, shard, row), in whatever order."""
    tie = tie_hash(winners["shard"].astype(np.int32), winners["row"].astype(np.int32))
    mixed = (tie ^ (winners["class"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    return int((mixed ^ (mixed >> np.uint64(29))).sum(dtype=np.uint64))


def memory(kind: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1024


def measure(method: str, folder: Path, k: int) -> dict[str, Any]:
    """Load the rows, run once, and report seconds, peak bytes above the loaded rows, and the winners' checksum."""
    columns = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
    for column in columns.values():
        column.sum(dtype=np.float64)  # in memory before the clock starts
    METHODS[method]({name: column[:100_000].copy() for name, column in columns.items()}, 5)  # imports and thread pools
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    started, cpu = time.perf_counter(), time.process_time()
    winners = METHODS[method](columns, k)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = memory("VmHWM") - before
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "rows": len(winners["class"]), "checksum": checksum(winners)}


def streamed(rows: int, k: int) -> dict[str, Any]:
    """Ours over blocks made as they are needed, so that N is not bounded by memory; only the updates are timed."""
    ours(block(0, 100_000), 5)  # compiled loops
    top_k = TopK(NUM_CLASSES, k)
    block(0, BLOCK)  # the rows' own temporaries are no part of the peak
    before, seconds = memory("VmRSS"), 0.0
    Path("/proc/self/clear_refs").write_text("5")
    for index, length in blocks(rows):
        columns = block(index, length)
        started = time.perf_counter()
        top_k.update(columns["class"], columns["score"], columns["shard"], columns["row"])
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    winners = top_k.result()
    seconds += time.perf_counter() - started
    return {"seconds": seconds, "peak": memory("VmHWM") - before, "rows": len(winners.classes), "checksum": 0}


def in_a_process(*arguments: str) -> dict[str, Any]:
    """One measurement in a fresh Python."""
    command = [sys.executable, "-m", "tests.benchmarks.select_topk", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def compare(rows: int, repeats: int, methods: list[str]) -> list[str]:
    """Markdown lines of the comparison on `rows` rows, K = N / (20 C)."""
    k = rows // (20 * NUM_CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        parts = [block(*part) for part in blocks(rows)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        del parts
        columns |= {"order": order_of(columns["score"]), "tie": tie_hash(columns["shard"], columns["row"])}
        columns["key"] = (columns["order"].astype(np.uint64) << np.uint64(48)) | (~columns["tie"] >> np.uint64(16))
        for name, column in columns.items():
            np.save(f"{folder}/{name}.npy", column)
        del columns
        runs: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
        for _ in range(repeats):
            for method in methods:
                runs[method].append(in_a_process("--one", method, "--folder", folder, "--k", str(k)))
    best = {key: {m: min(run[key] for run in runs[m]) for m in methods} for key in ("seconds", "cpu", "peak")}
    sums = {run["checksum"] for method in methods for run in runs[method]}
    lines = [
        f"{rows / 1e6:.0f} M shuffled rows, {NUM_CLASSES} classes, K = {k}; best of {repeats}, interleaved; "
        + ("the same rows from all." if len(sums) == 1 else "DIFFERENT ANSWERS."),
        "",
        "| method | seconds | x engine | CPU seconds | x engine | peak MB | x engine |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for method in methods:
        row = [method]
        for key, unit, digits in (("seconds", 1, 2), ("cpu", 1, 2), ("peak", 1e6, 0)):
            row += [f"{best[key][method] / unit:.{digits}f}", f"{best[key][method] / best[key][methods[0]]:.1f}"]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def linearity(sizes: list[int], repeats: int) -> list[str]:
    """Markdown lines: time a row at fixed K C / N."""
    lines = ["| rows | K | seconds | ns a row | peak MB |", "| ---: | ---: | ---: | ---: | ---: |"]
    for rows in sizes:
        k = rows // (20 * NUM_CLASSES)
        runs = [in_a_process("--streamed", "--rows", str(rows), "--k", str(k)) for _ in range(repeats)]
        run = min(runs, key=lambda run: run["seconds"])
        seconds = run["seconds"]
        lines.append(
            f"| {rows / 1e6:.0f} M | {k} | {seconds:.2f} | {seconds / rows * 1e9:.1f} | {run['peak'] / 1e6:.0f} |"
        )
    return lines


def main() -> None:
    """Run, print and keep the report; or, in a child process, one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=50e6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--streamed", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--k", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.folder, arguments.k)))
    elif arguments.streamed:
        print(json.dumps(streamed(int(arguments.rows), arguments.k)))
    else:
        text = f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, 24 GiB, load {os.getloadavg()[0]:.1f}. "
        text += report(arguments) + "\n"
        print(text)
        if arguments.out:
            arguments.out.write_text(text)


def report(arguments: argparse.Namespace) -> str:
    """The whole report."""
    comparison = compare(int(arguments.rows), arguments.repeats, arguments.methods)
    sizes = [size for size in (10**6, 10**7, 5 * 10**7, 2 * 10**8) if size <= 4 * arguments.rows]
    return "\n".join([*comparison, "", "Linear in N at fixed K C / N:", "", *linearity(sizes, arguments.repeats)])


if __name__ == "__main__":
    main()
