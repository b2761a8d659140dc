"""Predict a sample of the pool on the connected cluster, on all workers at once, because they share cores and disks."""

import io
import os
import resource
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
import torch

from engine.ground import allocator, storage
from engine.ground.record import StepRecord
from engine.ground.resources import ANYWHERE, ActorPoolSpec
from engine.ground.steps import Output, Store
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.fetch import fetch_model
from engine.plan.estimate import MeasuredCosts
from engine.predict.int8 import load_quantised
from engine.predict.job import PredictJob
from engine.predict.pipeline import PARQUET
from engine.predict.predict_plan import make_plan
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import Seconds, ShardPredictor
from engine.select.select import Selector
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings

AT_ONCE = 16
"""Most workers that measure at the same time; a node or two are representative."""


def measure(
    store: Store, scope: Scope, model: Output, settings: PredictSettings, actors: ActorPoolSpec, images: int
) -> tuple[MeasuredCosts, dict[str, Any]]:
    """The costs of about `images` images of the pool, and the plan of the predict step (backend, batch size)."""
    # only the step's folder is used; it is never started
    step = store.step(StepRecord("predict", 0, {"measured": time.time_ns()}))
    remote = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=actors.cpus, num_gpus=actors.gpus)
    manifest = scope.manifest
    job = PredictJob(step, scope, model, settings, actors.threads)
    _, boot = timed([remote(do_nothing).remote()])
    (plan,), chosen = timed([remote(make_plan).remote(job, actors.count)])
    obeyed = settings.model_copy(update=plan["predict"])
    job_ref = ray.put(replace(job, settings=obeyed))
    workers = min(actors.count, AT_ONCE, manifest.num_shards)
    samplers: list[Any] = [remote(Sampler).remote(job_ref) for _ in range(workers)]
    _, ready = timed([sampler.ready.remote() for sampler in samplers])
    per_shard = max(1, manifest.num_rows // max(1, manifest.num_shards))
    shards = np.arange(min(manifest.num_shards, max(workers, -(-images // per_shard))))
    # spread over the pool: its first shards may all be of one class
    spread = np.linspace(0, manifest.num_shards - 1, len(shards)).astype(int)
    groups = zip(samplers, np.array_split(spread, workers), strict=True)
    costs = ray.get([sampler.measure_shards.remote(group.tolist()) for sampler, group in groups])
    if obeyed.backend == "int8":
        step.fs.delete_dir(step.folder)  # the quantised network of the measurement
    return mean_costs(costs, manifest, boot, boot + chosen + ready), plan


def do_nothing() -> None:
    """An empty task, whose duration is the overhead of a task."""


def timed(refs: list[Any]) -> tuple[list[Any], float]:
    """Results of just submitted calls, and the seconds until all were ready."""
    began = time.perf_counter()
    return ray.get(refs), time.perf_counter() - began


class Sampler:
    """A predict worker in a separate process, without look-ahead; its parts are written to a scratch file."""

    def __init__(self, job: PredictJob) -> None:
        self.step, self.manifest = job.step, job.scope.manifest
        torch.set_num_threads(job.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        quantised = load_quantised(job.step) if job.settings.backend == "int8" else None
        predictor = Predictor(fetch_model(job.model, job.step.fs), job.settings, device, quantised)
        self.predictor = ShardPredictor(job.scope, predictor)
        self.classes = ClassList(tuple(predictor.loaded.class_names))
        allocator.keep_freed()

    def ready(self) -> None:
        """Return once the model is loaded."""

    def measure_shards(self, shards: list[int]) -> dict[str, float]:
        """Predict, write and select from `shards`: the sums of all costs."""
        sums = dict.fromkeys(("images", "seen", "bytes", "predictions", "select", *vars(Seconds())), 0.0)
        selector = Selector(SelectSettings(), self.classes)
        scratch = f"{self.step.store.root}/plan-{time.time_ns()}-{os.getpid()}.parquet"
        for shard in shards:
            predicted = self.predictor(shard)
            started = time.perf_counter()
            buffer = io.BytesIO()
            pq.write_table(
                predicted.predictions, buffer, compression="zstd", use_compliant_nested_type=False, **PARQUET
            )
            storage.put(self.step.fs, scratch, buffer.getbuffer())
            predicted.seconds.write = time.perf_counter() - started
            if not sums["seen"]:
                selector.empty().update(predicted.predictions)  # the first use compiles its loops
            started = time.perf_counter()
            selector.update(predicted.predictions)
            sums["select"] += time.perf_counter() - started
            for stage, value in vars(predicted.seconds).items():
                sums[stage] += value
            sums["images"] += predicted.predictions.num_rows
            sums["seen"] += int(self.manifest.rows[shard])
            sums["bytes"] += self.manifest.shards["bytes"][shard].as_py()
            sums["predictions"] += buffer.tell()
        if shards:
            self.step.fs.delete_file(scratch)
        sums["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return sums


def mean_costs(costs: list[dict[str, float]], manifest: Manifest, boot: float, start_up: float) -> MeasuredCosts:
    """Costs per image of one worker from the sums of all workers. Raises ValueError when no image of the sample could be decoded."""
    total = {name: sum(one[name] for one in costs) for name in costs[0]}
    if not total["images"]:
        raise ValueError(f"{manifest.uri}: none of the {total['seen']:.0f} sampled images could be decoded")
    each = {stage: total[stage] / total["seen"] for stage in ("read", "decode", "infer", "write", "select")}
    return MeasuredCosts(
        images=int(total["seen"]),
        **each,
        image_bytes=total["bytes"] / total["seen"],
        prediction_bytes=total["predictions"] / total["images"],
        resident=int(max(one["resident"] for one in costs)),
        boot=boot,
        start_up=start_up,
    )
