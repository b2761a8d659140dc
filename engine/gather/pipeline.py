"""Gather on Ray: each task streams the shards of one group once and puts one shuffled training shard."""

import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import ray

from engine.gather.grouping import PICKS, ShardGroup, group_shards
from engine.gather.rejects import check_labelled, check_rejected
from engine.gather.training_set import TrainingSet, TrainingShard
from engine.ground.progress import Progress, log_event
from engine.ground.record import StepRecord
from engine.ground.resources import ANYWHERE
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, read_tables
from engine.images.collection import Collection
from engine.images.decode import Frame, RejectedImageError, content_hash, decode
from engine.images.manifest import Manifest
from engine.images.overlap import ExclusionSet
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.tables import schema

REVISION = 1
GROUP_ROWS = 8192
SEED = 0
CHECK_FRAME = Frame(32)


def gather(
    run: Run,
    label: str,
    pseudo: Output,
    scope: Scope,
    classes: ClassList,
    check: bool = False,
) -> Output:
    """Training shards (schema.training) of the images that have targets: one pass over the shards that hold any.

    `pseudo`: a selection, or another step of targets (`schema.targets`), of images of `scope`. `check`: no verb has decoded the images yet;
    those that cannot be read and those that the scope excludes are left out and counted. Raises TooManyRejectsError when more of them were
    rejected than the scope's limit.
    """
    held = scope.exclusions
    inputs = {"pseudo": pseudo.digest, "images": scope.collection.digest, "classes": classes.hash}
    if held is not None:
        inputs["held"] = held.digest
    kind = {"kind": pseudo.summary["kind"]} if "kind" in pseudo.summary else {}
    settings = {"seed": SEED, "group_rows": GROUP_ROWS, **({"check": True} if check else {}), **kind}

    def work(step: Step) -> Output:
        picks = pa.concat_tables(table for _, table in read_tables(pseudo, run.store.fs, list(PICKS)))
        return _gather(run, label, step, picks, scope.collection, classes, SEED, check, kind, held)

    record = StepRecord("gather", REVISION, settings, inputs)
    output = run.find_or_run_step(label, record, work)
    check_rejected(label, run.store.step(record), output, scope.max_rejected_percent)
    return output


def gather_labelled(run: Run, label: str, scope: Scope, classes: ClassList) -> Output:
    """Training shards of a labelled scope with hard targets. Images that cannot be decoded are left out and counted.

    Raises TooManyRejectsError when they are more than the scope's limit; ValueError when a class lost all its images, and when an image has no
    label or one that is not in `classes`.
    """
    inputs = {"images": scope.collection.digest, "classes": classes.hash}
    settings = {"seed": SEED, "group_rows": GROUP_ROWS, "max_rejected_percent": scope.max_rejected_percent}
    only = scope.chosen
    if only is not None:
        inputs["only"] = only.digest

    def work(step: Step) -> Output:
        picks = hard_picks(scope.collection, classes)
        if only is not None:
            picks = picks.filter(pa.array(only.holds(picks["shard"].to_numpy(), picks["row"].to_numpy())))
        return _gather(run, label, step, picks, scope.collection, classes, SEED, check=True)

    record = StepRecord("gather", REVISION, settings, inputs)
    output = run.find_or_run_step(label, record, work)
    check_labelled(label, run.store.step(record), output, scope, classes)
    return output


def hard_picks(collection: Collection, classes: ClassList) -> pa.Table:
    """Every image of a labelled collection with one class of weight 1."""
    labels = collection.manifest.labels()
    index = collection.class_indices(classes)
    number = len(index)
    offsets = pa.array(np.arange(number + 1, dtype=np.int32))
    values = pa.array(index.astype(schema.class_dtype(len(classes.names))))
    return pa.table(
        {
            "shard": labels["shard"],
            "row": labels["row"],
            "classes": pa.ListArray.from_arrays(offsets, values),
            "weights": pa.ListArray.from_arrays(offsets, pa.array(np.ones(number, np.float32))),
            "count": pa.array(np.ones(number, np.int32)),
        }
    )


def training_set(output: Output, store: Store, classes: ClassList) -> TrainingSet:
    """The training set that a gather step made."""
    shards = tuple(
        TrainingShard(part.name, part.rows, part.stats["draws"], part.bytes) for part in output.parts(store.fs)
    )
    return TrainingSet(
        f"{output.uri}/parts" if "?" not in output.uri else _parts_uri(output.uri),
        shards,
        len(classes.names),
        classes.hash,
        output.summary.get("kind", "distribution"),
    )


def _parts_uri(uri: str) -> str:
    base, _, query = uri.partition("?")
    return f"{base}/parts?{query}"


def _gather(
    run: Run,
    label: str,
    step: Step,
    picks: pa.Table,
    collection: Collection,
    classes: ClassList,
    seed: int,
    check: bool,
    more: dict[str, str] | None = None,
    held: ExclusionSet | None = None,
) -> Output:
    started = time.time()
    parts = step.found_parts()
    work = group_shards(picks, GROUP_ROWS, seed)
    progress = Progress(label, len(work), "training shards", done=len(parts))
    for part in _on_ray(
        [group for group in work if group.unit not in parts],
        step,
        collection.manifest,
        classes,
        seed,
        check,
        held,
        run.cluster.retries.max_failures,
    ):
        parts[part.unit] = part
        progress.add(1, part.rows, part.stats["left_out"])
    left_out = sum(part.stats["left_out"] for part in parts.values())
    if left_out:
        log_event(
            label,
            f"{left_out} images could not be used and were left out; they are in the step's quarantine/ with the reason",
        )
    summary = {
        "rows": sum(part.rows for part in parts.values()),
        "draws": sum(part.stats["draws"] for part in parts.values()),
        "left_out": left_out,
        **(more or {}),
    }
    return step.commit(parts.values(), summary, started)


def _on_ray(
    work: list[ShardGroup],
    step: Step,
    manifest: Manifest,
    classes: ClassList,
    seed: int,
    check: bool,
    held: ExclusionSet | None,
    retries: int,
) -> Iterator[Part]:
    """Parts as the tasks finish them, a bounded number of tasks in flight."""
    task = ray.remote(scheduling_strategy=ANYWHERE, num_cpus=1, max_retries=retries)(gather_group)
    at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    shared = ray.put(held)
    waiting = list(reversed(work))
    flying: list[ray.ObjectRef] = []
    while waiting or flying:
        while waiting and len(flying) < at_once:
            flying.append(
                task.remote(waiting.pop(), step, manifest, classes, seed, check, shared)  # type: ignore[call-arg]  # Ray's stubs end at six
            )
        ready, flying = ray.wait(flying, num_returns=1)
        yield from ray.get(ready)


def gather_group(
    group: ShardGroup,
    step: Step,
    manifest: Manifest,
    classes: ClassList,
    seed: int,
    check: bool,
    held: ExclusionSet | None = None,
) -> Part:
    """Read the picked images of one group's shards, shuffle them, and put them as one training shard."""
    kept: list[pa.Table] = []
    left_out: list[tuple[int, int, str, str]] = []
    shards = group.picks["shard"].to_numpy()
    for shard, start, count in zip(*np.unique(shards, return_index=True, return_counts=True), strict=True):
        picks = group.picks.slice(start, count)
        rows = picks["row"].to_numpy()
        images = pa.Table.from_batches(list(manifest.read(int(shard), np.unique(rows))), schema=schema.IMAGES)
        images = images.take(
            np.searchsorted(images["row"].to_numpy(), rows)
        )  # an image chosen for two classes is two rows
        usable = np.ones(count, bool)
        if check:
            for i, (key, image) in enumerate(zip(images["key"].to_pylist(), images["image"], strict=True)):
                try:
                    decode(image.as_buffer(), CHECK_FRAME)
                    if held is not None and (reason := _held(held, manifest, key, image.as_buffer())):
                        raise RejectedImageError(reason)
                except RejectedImageError as bad:
                    usable[i] = False
                    left_out.append((int(shard), int(rows[i]), key, str(bad)))
        table = pa.table(
            [images["key"], images["image"], picks["classes"], picks["weights"], picks["count"]],
            schema=schema.training(len(classes.names), classes.hash),
        )
        kept.append(table.filter(pa.array(usable)))
    table = pa.concat_tables(kept)
    table = table.take(np.random.default_rng([seed, group.unit]).permutation(table.num_rows))
    stats = {"draws": int(np.sum(table["count"].to_numpy())), "left_out": len(left_out)}
    if left_out:
        columns = list(zip(*left_out, strict=True))
        step.put_sidecar("quarantine", group.unit, pa.table(columns, schema=schema.QUARANTINE))
    # row groups of 256: a stream reads a few at a time; JPEGs do not compress
    return step.put_part(group.unit, table, stats, compression="none", row_group_size=256, use_dictionary=["classes"])


def _held(held: ExclusionSet, manifest: Manifest, key: str, image: pa.Buffer) -> str | None:
    """Why an image is kept out, or None."""
    return held.reason(key if manifest.has_keys else None, content_hash(image))
