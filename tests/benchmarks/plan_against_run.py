"""What `jobs.plan` says of a pool against what the run then took: seconds, bytes read, bytes written.

The sample is measured first, then the whole pool is labelled and selected from, in the same session.

    python -m tests.benchmarks.plan_against_run /bench/photo --teacher /bench/teacher --rounds 3
"""

import argparse
import shutil
import time
from pathlib import Path

import ray

from engine.ground.resources import predict_actors
from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.checkpoint import class_names
from engine.models.imported import find_model
from engine.plan.estimate import PoolTotals, estimate
from engine.plan.measure import measure
from engine.predict.pipeline import predict
from engine.select.pipeline import SelectSpec, select
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.jobs import PlanSettings
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings
from jobs.plan import connected_cluster


def compare(pool: Path, teacher: Path, size: int, workers: int) -> list[str]:
    """Rows of the table: planned and taken, and their ratio."""
    cluster = ClusterSettings(label={"workers": workers})
    settings, plan = PredictSettings(), PlanSettings()
    store = Store(str(pool / f"store-{time.time_ns()}"))
    run = Run(store, "run", cluster)
    images = open_collection(run, "pool", str(pool / "pool.parquet"), SourceSettings(rows_per_shard=size))
    manifest, model = images.manifest, find_model(run, str(teacher))
    found, _ = measure(
        store, Scope(images), model, settings, predict_actors(cluster, manifest.num_shards), plan.sample_images
    )
    machines = connected_cluster(ray.nodes(), plan)
    stored = sum(manifest.shards["bytes"].to_pylist())
    labelled, selected, *_ = estimate(found, PoolTotals(manifest.num_rows, stored, manifest.num_shards), machines)
    began = time.perf_counter()
    output = predict(run, "predict", model, Scope(images), settings)
    took = time.perf_counter() - began
    began = time.perf_counter()
    select(run, "select", output, SelectSpec(SelectSettings(), ClassList(tuple(class_names(teacher)))))
    took_select = time.perf_counter() - began
    written = sum(part.bytes for part in output.parts(store.fs))
    read = (pool / "pool.parquet").stat().st_size
    shutil.rmtree(store.root)
    pairs = {
        "predict, s": (labelled.seconds, took),
        "select, s": (selected.seconds, took_select),
        "read, MB": (labelled.read / 1e6, read / 1e6),
        "written, MB": (labelled.written / 1e6, written / 1e6),
    }
    return [f"| {name} | {said:.2f} | {was:.2f} | {said / was:.2f} |" for name, (said, was) in pairs.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="a folder of `predict_loop make`")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--shard", type=int, default=1024, help="rows of a shard")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    print("| | planned | taken | planned / taken |\n|---|---:|---:|---:|", flush=True)
    with connect(ClusterSettings(num_cpus=arguments.workers)):
        for _ in range(arguments.rounds):
            print("\n".join(compare(arguments.pool, arguments.teacher, arguments.shard, arguments.workers)), flush=True)


if __name__ == "__main__":
    main()
