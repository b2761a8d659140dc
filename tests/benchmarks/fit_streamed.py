"""Fit with the decoded cache off: images/s and peak memory must not depend on how many images there are.

    python tests/benchmarks/fit_streamed.py CIFAR [--sizes 10000 100000] [--side 96]

CIFAR's images are enlarged to `side` pixels and encoded as JPEG, over and over until there are as many as asked for, gathered by the engine's own
layout (8,192 rows a shard, row groups of 256), and learnt from at 32 px: mostly decoding, hence the worst case for a stream. One thread computes.
"""

import argparse
import io
import resource
import shutil
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from engine.fit.loop import Hooks, train
from engine.fit.objective import Context, create_objective
from engine.gather.training_set import TrainingSet, TrainingShard
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.tables import schema
from tests.fit.sets import open_stream

CLASSES = tuple(str(i) for i in range(10))
ROWS, STEPS, BATCH = 8192, 200, 128


def make_shards(cifar: Path, folder: Path, size: int, side: int) -> TrainingSet:
    """`size` JPEGs in training shards of 8,192 rows."""
    source = pq.read_table(cifar / "train-00.parquet", columns=["image"])["image"].to_pylist()
    larger = [enlarge(image, side, quality) for quality in (85, 90) for image in source[:5000]]
    shards = []
    for unit, start in enumerate(range(0, size, ROWS)):
        rows = min(ROWS, size - start)
        table = pa.table(
            {
                "shard": [unit] * rows,
                "row": list(range(rows)),
                "key": [f"{start + i}" for i in range(rows)],
                "image": pa.array([larger[(start + i) % len(larger)] for i in range(rows)], pa.binary()),
                "classes": [[i % 10] for i in range(rows)],
                "weights": [[1.0]] * rows,
                "count": np.ones(rows, np.int32),
            },
            schema=schema.training(10, "benchmark"),
        )
        path = folder / f"part-{unit}.parquet"
        pq.write_table(table, path, compression="none", row_group_size=256)
        shards.append(TrainingShard(path.name, rows, rows, path.stat().st_size))
    return TrainingSet(str(folder), tuple(shards), 10, "benchmark")


def enlarge(data: bytes, side: int, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def measure(training_set: TrainingSet, cache_bytes: int) -> tuple[float, float, float]:
    """Images/s, share of the time spent waiting for data, and peak memory in MiB above that before the stream was opened."""
    torch.set_num_threads(1)
    model = ModelSettings(model="resnet8_cifar", img_size=32)
    settings = FitSettings(
        steps=STEPS, batch={"labelled": BATCH}, log_every=STEPS, checkpoint_every=STEPS, cache_bytes=cache_bytes
    )
    objective = create_objective(Context(torch.device("cpu"), settings, model, CLASSES, precision="bf16"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    stream = open_stream("labelled", training_set, batch_size=BATCH, seed=0, size=32, cache_bytes=cache_bytes)
    logged: list[dict[str, float]] = []
    train(objective, {"labelled": stream}, settings, Hooks(lambda *_: None, logged.append))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return STEPS * BATCH / (time.perf_counter() - started), logged[-1]["waiting"], (peak - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--side", type=int, default=96)
    arguments = parser.parse_args()
    print(
        "| JPEGs | MiB on disk | cache | images/s | waiting for data | peak memory above the start, MiB |\n|---:|---:|---|---:|---:|---:|"
    )
    for size in arguments.sizes:
        folder = Path(tempfile.mkdtemp(prefix="streamed-"))
        made = make_shards(arguments.cifar, folder, size, arguments.side)
        mib = sum(shard.bytes for shard in made.shards) / 2**20
        for name, cache_bytes in (("off", 0), ("on", 2**33)):
            with get_context("spawn").Pool(1) as process:
                rate, waiting, peak = process.apply(measure, (made, cache_bytes))
            print(f"| {size:,} | {mib:.0f} | {name} | {rate:.0f} | {waiting:.0%} | {peak:.0f} |", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
