"""What Ray and the driver cost a shard: a null model over a simulated pool; seconds of driver CPU and wall a shard, and the driver's memory.

python -m tests.benchmarks.predict_orchestration --shards 100000 --out /tmp/orchestration.md
"""

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.fs as pafs

from engine.ground.progress import Progress
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Output, Part, Store
from engine.images.collection import Collection
from engine.images.columns import Columns
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.predict import pipeline
from engine.predict.job import PredictJob
from engine.settings.cluster import ClusterSettings
from engine.settings.predict import PredictSettings
from engine.tables import schema

ROWS = 2048


class NullActor(pipeline.PredictActor):
    """Answers at once and writes nothing: what is left is what is measured."""

    def __init__(self, job: PredictJob) -> None:
        self.step, self.broken = job.step, None

    def _label(self, shard: int) -> dict[str, Any]:
        digest = hashlib.sha256(str(shard).encode()).hexdigest()
        stats = {"reasons": {}, "rejected": 0, "excluded": 0}
        return {"part": vars(Part(shard, f"part-{shard:08d}-00000000.infer10.parquet", ROWS, 50_000, digest, stats))}


def simulated(folder: Path, shards: int) -> Collection:
    """A collection of so many shards of which no image exists."""
    columns = [
        range(shards),
        ["pool.parquet"] * shards,
        range(0, shards * ROWS, ROWS),
        [ROWS] * shards,
        [10**8] * shards,
    ]
    table = pa.table([list(column) for column in columns], schema=schema.SHARDS)
    made = Manifest(
        pafs.LocalFileSystem(), str(folder), str(folder), "parquet", Columns(image="image"), "simulated", {}, {}, table
    )
    return Collection("pool", made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--wave", type=int, default=4096)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    pipeline.PredictActor = NullActor  # type: ignore[misc]
    memory: list[int] = []
    honest = Progress.add

    def watching(self: Progress, *values: int) -> None:
        if self.done % 1000 == 0:
            memory.append(psutil.Process().memory_info().rss)
        honest(self, *values)

    Progress.add = watching  # type: ignore[assignment, method-assign]
    pipeline._Labelling._start = lambda *_: {  # type: ignore[method-assign]
        "shards": arguments.shards,
        "predict": {"batch_size": 128, "backend": "eager"},
    }
    cluster = ClusterSettings(label={"workers": arguments.workers, "wave_shards": arguments.wave})
    with tempfile.TemporaryDirectory() as name, connect(cluster):
        run = Run(Store(f"{name}/store"), "run", cluster)
        model = Output("model", "none", "none", "none", {})
        cpu, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        output = pipeline.predict(
            run, "predict", model, Scope(simulated(Path(name), arguments.shards)), PredictSettings()
        )
        wall = time.perf_counter() - wall
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert output.summary["images"] == arguments.shards * ROWS
    spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    tenth = max(1, len(memory) // 10)
    lines = [
        f"| {arguments.shards} shards, {arguments.workers} workers, waves of {arguments.wave} | |",
        "| --- | ---: |",
        f"| driver CPU a shard | {1000 * spent / arguments.shards:.2f} ms |",
        f"| wall a shard | {1000 * wall / arguments.shards:.2f} ms |",
        f"| driver memory after a tenth, at the end | {memory[tenth] / 1e6:.0f} MB, {memory[-1] / 1e6:.0f} MB |",
    ]
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
