"""A sample of the pool labelled on the present cluster: every worker at once, since cores and disks are shared."""

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
"""Workers that measure at the same time, at most: those of a node or two tell what there is to know."""


def measure(
    store: Store, scope: Scope, model: Output, settings: PredictSettings, actors: ActorPoolSpec, images: int
) -> tuple[MeasuredCosts, dict[str, Any]]:
    """What about `images` of the pool cost, and the plan of the labelling step (backend, batch)."""
    step = store.step("predict", 0, {"measured": time.time_ns()}, {})  # a place to name, never begun
    remote = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=actors.cpus, num_gpus=actors.gpus)
    manifest = scope.manifest
    job = PredictJob(step, scope, model, settings, actors.threads)
    _, boot = timed([remote(nothing).remote()])
    (plan,), chosen = timed([remote(make_plan).remote(job, actors.count)])
    obeyed = settings.model_copy(update=plan["predict"])
    job_ref = ray.put(replace(job, settings=obeyed))
    workers = min(actors.count, AT_ONCE, manifest.num_shards)
    samplers: list[Any] = [remote(Sampler).remote(job_ref) for _ in range(workers)]
    _, ready = timed([sampler.ready.remote() for sampler in samplers])
    per_shard = max(1, manifest.num_rows // max(1, manifest.num_shards))
    shards = np.arange(min(manifest.num_shards, max(workers, -(-images // per_shard))))
    # spread over the pool: the first shards may be of one kind
    spread = np.linspace(0, manifest.num_shards - 1, len(shards)).astype(int)
    shares = zip(samplers, np.array_split(spread, workers), strict=True)
    found = ray.get([sampler.label.remote(share.tolist()) for sampler, share in shares])
    if obeyed.backend == "int8":
        step.fs.delete_dir(step.folder)  # the network that was quantised for the measurement
    return combined(found, manifest, boot, boot + chosen + ready), plan


def nothing() -> None:
    """What a task costs that does nothing."""


def timed(refs: list[Any]) -> tuple[list[Any], float]:
    """Results of what was just asked for, and the seconds until they were there."""
    began = time.perf_counter()
    return ray.get(refs), time.perf_counter() - began


class Sampler:
    """A worker as labelling has them, a new process, without look-ahead; its parts go into a scratch file."""

    def __init__(self, job: PredictJob) -> None:
        self.step, self.manifest = job.step, job.scope.manifest
        torch.set_num_threads(job.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        quantised = load_quantised(job.step) if job.settings.backend == "int8" else None
        predictor = Predictor(fetch_model(job.model, job.step.fs), job.settings, device, quantised)
        self.labeller = ShardPredictor(job.scope, predictor)
        self.classes = ClassList(tuple(predictor.loaded.class_names))
        allocator.keep_freed()

    def ready(self) -> None:
        """Answers once the teacher is loaded."""

    def label(self, shards: list[int]) -> dict[str, float]:
        """Label, write and select from some shards: sums over them."""
        sums = dict.fromkeys(("images", "seen", "bytes", "predictions", "select", *vars(Seconds())), 0.0)
        selector = Selector(SelectSettings(), self.classes)
        scratch = f"{self.step.store.root}/plan-{time.time_ns()}-{os.getpid()}.parquet"
        for shard in shards:
            labelled = self.labeller(shard)
            started = time.perf_counter()
            buffer = io.BytesIO()
            pq.write_table(labelled.predictions, buffer, compression="zstd", use_compliant_nested_type=False, **PARQUET)
            storage.put(self.step.fs, scratch, buffer.getbuffer())
            labelled.seconds.write = time.perf_counter() - started
            if not sums["seen"]:
                selector.empty().update(labelled.predictions)  # its loops are compiled by their first use
            started = time.perf_counter()
            selector.update(labelled.predictions)
            sums["select"] += time.perf_counter() - started
            for stage, value in vars(labelled.seconds).items():
                sums[stage] += value
            sums["images"] += labelled.predictions.num_rows
            sums["seen"] += int(self.manifest.rows[shard])
            sums["bytes"] += self.manifest.shards["bytes"][shard].as_py()
            sums["predictions"] += buffer.tell()
        if shards:
            self.step.fs.delete_file(scratch)
        sums["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return sums


def combined(found: list[dict[str, float]], manifest: Manifest, boot: float, start_up: float) -> MeasuredCosts:
    """One worker's costs an image from the sums of all. Raises ValueError when no image of the sample could be used."""
    total = {name: sum(one[name] for one in found) for name in found[0]}
    if not total["images"]:
        raise ValueError(f"{manifest.uri}: none of the {total['seen']:.0f} images of the sample could be used")
    each = {stage: total[stage] / total["seen"] for stage in ("read", "decode", "infer", "write", "select")}
    return MeasuredCosts(
        images=int(total["seen"]),
        **each,
        image_bytes=total["bytes"] / total["seen"],
        prediction_bytes=total["predictions"] / total["images"],
        resident=int(max(one["resident"] for one in found)),
        boot=boot,
        start_up=start_up,
    )
