"""Content hashes of a labelled or evaluation set, computed once on Ray and kept: a resumed run does not read its images again."""

import time
from itertools import chain

import numpy as np
import pyarrow as pa
import ray

from engine.ground.record import StepRecord
from engine.ground.resources import ANYWHERE
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, read_tables
from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.images.overlap import ContentHashes, read_content_hashes

REVISION = 1
HASHES = pa.schema([("key", pa.string()), ("hash", pa.binary(16))])


def hash_images(run: Run, collection: Collection) -> ContentHashes:
    """Keys and content hashes of every image of `collection` that can be had."""

    def work(step: Step) -> Output:
        started = time.time()
        done = step.found_parts()
        shards = [shard for shard in range(collection.manifest.num_shards) if shard not in done]
        tasks = max(1, min(len(shards), 4 * int(ray.cluster_resources().get("CPU", 1))))
        made = [
            _hash_shards.remote(step, collection.manifest, share.tolist()) for share in np.array_split(shards, tasks)
        ]
        parts = [*done.values(), *chain.from_iterable(ray.get(made))]
        return step.commit(parts, {"images": sum(part.rows for part in parts)}, started)

    output = run.find_or_run_step(
        f"hash {collection.name}", StepRecord("hash", REVISION, {}, {"images": collection.digest}), work
    )
    table = pa.concat_tables([HASHES.empty_table(), *(table for _, table in read_tables(output, run.store.fs))])
    return ContentHashes(table["key"].to_pylist(), table["hash"].to_pylist(), collection.manifest.has_keys)


@ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1)
def _hash_shards(step: Step, manifest: Manifest, shards: list[int]) -> list[Part]:
    parts = []
    for shard in shards:
        found = read_content_hashes(manifest, [shard])
        parts.append(step.put_part(shard, pa.table([found.keys, found.hashes], schema=HASHES)))
    return parts
