"""A sample of the pool labelled on the present cluster: every worker at once, since cores and disks are shared."""

import io
import resource
import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
import torch

from engine import storage
from engine.images.manifest import Manifest
from engine.labels.classes import ClassManifest
from engine.models.fetch import fetch_model
from engine.plan.estimate import Measured
from engine.predict.int8 import kept
from engine.predict.labelling import Seconds, ShardLabeller
from engine.predict.pipeline import PARQUET
from engine.predict.predictor import Predictor
from engine.predict.start import start
from engine.resources import ANYWHERE, Actors
from engine.select.select import Selector
from engine.settings import PredictSettings, SelectSettings
from engine.steps import Output, Step, Store

AT_ONCE = 16
"""Workers that measure at the same time, at most: those of a node or two tell what there is to know."""


def measure(
    store: Store, manifest: Manifest, model: Output, settings: PredictSettings, actors: Actors, images: int
) -> tuple[Measured, dict[str, Any]]:
    """What about `images` of the pool cost, and the plan of the labelling step (backend, batch)."""
    step = store.step("predict", 0, {"measured": time.time_ns()}, {})  # a place to name, never begun
    remote = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=actors.cpus, num_gpus=actors.gpus)
    manifest_ref = ray.put(manifest)
    begun = remote(start)
    plan = ray.get(begun.remote(step, manifest_ref, model, settings, actors.threads, actors.count))
    obeyed = settings.model_copy(update=plan["predict"])
    workers = min(actors.count, AT_ONCE, manifest.num_shards)
    per_shard = max(1, manifest.num_rows // max(1, manifest.num_shards))
    shards = np.arange(min(manifest.num_shards, max(workers, -(-images // per_shard))))
    # spread over the pool: the first shards may be of one kind
    chosen = np.linspace(0, manifest.num_shards - 1, len(shards)).astype(int)
    task = remote(measure_shards)
    found = ray.get(
        [
            task.remote(step, manifest_ref, model, obeyed, share.tolist(), actors.threads)
            for share in np.array_split(chosen, workers)
        ]
    )
    if obeyed.backend == "int8":
        step.fs.delete_dir(step.folder)  # the network that was quantised for the measurement
    return combined(found, manifest), plan


def measure_shards(
    step: Step, manifest: Manifest, model: Output, settings: PredictSettings, shards: list[int], threads: int
) -> dict[str, float]:
    """Label some shards as an actor would, without look-ahead, and put their parts into a scratch file. Sums over the shards."""
    began = time.perf_counter()
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    quantised = kept(step) if settings.backend == "int8" else None
    labeller = ShardLabeller(manifest, Predictor(fetch_model(model, step.fs), settings, device, quantised))
    sums = {"start_up": time.perf_counter() - began, "images": 0.0, "seen": 0.0, "bytes": 0.0, "predictions": 0.0}
    sums |= dict.fromkeys((*vars(Seconds()), "select"), 0.0)
    selector = Selector(SelectSettings(), ClassManifest(tuple(labeller.predictor.loaded.class_names)))
    scratch = f"{step.store.root}/plan-{time.time_ns()}.parquet"
    for shard in shards:
        labelled = labeller(shard)
        started = time.perf_counter()
        buffer = io.BytesIO()
        pq.write_table(labelled.predictions, buffer, compression="zstd", use_compliant_nested_type=False, **PARQUET)
        storage.put(step.fs, scratch, buffer.getbuffer())
        labelled.seconds.write = time.perf_counter() - started
        if not sums["seen"]:
            selector.empty().update(labelled.predictions)  # its loops are compiled by their first use
        started = time.perf_counter()
        selector.update(labelled.predictions)
        sums["select"] += time.perf_counter() - started
        for stage, value in vars(labelled.seconds).items():
            sums[stage] += value
        sums["images"] += labelled.predictions.num_rows
        sums["seen"] += int(manifest.rows[shard])
        sums["bytes"] += manifest.shards["bytes"][shard].as_py()
        sums["predictions"] += buffer.tell()
    if shards:
        step.fs.delete_file(scratch)
    sums["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return sums


def combined(found: list[dict[str, float]], manifest: Manifest) -> Measured:
    """One worker's costs an image from the sums of all. Raises ValueError when no image of the sample could be used."""
    total = {name: sum(one[name] for one in found) for name in found[0]}
    if not total["images"]:
        raise ValueError(f"{manifest.uri}: none of the {total['seen']:.0f} images of the sample could be used")
    each = {stage: total[stage] / total["seen"] for stage in ("read", "decode", "infer", "write", "select")}
    return Measured(
        images=int(total["seen"]),
        **each,
        image_bytes=total["bytes"] / total["seen"],
        prediction_bytes=total["predictions"] / total["images"],
        resident=int(max(one["resident"] for one in found)),
        start_up=max(one["start_up"] for one in found),
    )
