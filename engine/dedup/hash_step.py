"""Hashes of every image of a collection as a durable step: computed once, one part per shard, so a killed step resumes with the shards it lacks."""

import time
from collections.abc import Callable

import pyarrow as pa
import torch

from engine.ground.fanout import FanOut, TaskResources, chunks, task_slots
from engine.ground.progress import Progress
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step
from engine.images.collection import Collection
from engine.images.manifest import Manifest

TASKS_PER_CPU = 16
"""Tasks into which the shards are dealt for each CPU, so that the last ones end at about the same time."""

HashShard = Callable[[Manifest, int], pa.Table]


def hash_step(run: Run, collection: Collection, verb: str, revision: int, hash_shard: HashShard) -> Output:
    """`hash_shard(manifest, shard)` of every shard of `collection`, one part each. Summary: {images}."""
    title = f"{verb} {collection.name}"

    def work(step: Step) -> Output:
        started = time.time()
        parts = step.found_parts()
        missing = [shard for shard in range(collection.manifest.num_shards) if shard not in parts]
        progress = Progress(title, collection.manifest.num_shards, "shards", done=len(parts))
        groups = chunks(missing, TASKS_PER_CPU * task_slots(TaskResources()))
        for made in FanOut(run, title, step).map(put_shards, groups, step, collection.manifest, hash_shard):
            parts |= {part.unit: part for part in made}
            progress.add(len(made), sum(part.rows for part in made))
        return step.commit(parts.values(), {"images": sum(part.rows for part in parts.values())}, started)

    return run.find_or_run_step(title, StepRecord(verb, revision, {}, {"images": collection.digest}), work)


def put_shards(shards: list[int], step: Step, manifest: Manifest, hash_shard: HashShard) -> list[Part]:
    """The parts of some shards, made one after the other."""
    torch.set_num_threads(1)
    return [step.put_part(shard, hash_shard(manifest, shard)) for shard in shards]
