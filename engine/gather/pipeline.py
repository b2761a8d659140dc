"""Gather on Ray: each task streams the shards of one group once and puts one shuffled training shard."""

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from engine.gather.arrange import arrange
from engine.gather.grouping import ShardGroup, group_shards
from engine.gather.picks import ChosenPicks, Picks, TruePicks
from engine.gather.rejects import check_labelled, check_rejected
from engine.gather.training_set import TrainingSet, TrainingShard
from engine.ground.fanout import FanOut
from engine.ground.progress import Progress, log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, verb_of
from engine.images.decode import Frame, RejectedImageError, decode, decode_full_size, decode_mask_full_size
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.labels.stored import check_classes
from engine.predict.pool import check_same_pool
from engine.tables import schema
from engine.tables.schema import IGNORE

REVISION = 2
GROUP_ROWS = 8192
SEED = 0
CHECK_FRAME = Frame(32)


@dataclass(frozen=True)
class GatherJob:
    """What every task of a gather step needs. `check`: no verb has decoded the images yet; those that cannot be decoded and those that the scope
    excludes are left out.
    """

    step: Step
    scope: Scope
    classes: ClassList
    picks: Picks
    seed: int = SEED
    check: bool = True


def gather(run: Run, label: str, pseudo: Output, scope: Scope, classes: ClassList, check: bool = False) -> Output:
    """Training shards (schema.training) of the images that have targets: one pass over the shards that hold any.

    `pseudo`: a selection, or another step of targets (`schema.targets`), of images of `scope`. `check`: as in `GatherJob`; the images not used are
    counted. Raises ValueError for targets of other images or classes; TooManyRejectsError when more images were rejected than the scope's limit.
    """
    check_same_pool(run.store, pseudo, scope.collection)
    check_classes(pseudo, run.store, classes)
    inputs = {"pseudo": pseudo.digest, "images": scope.collection.digest, "classes": classes.hash}
    if scope.exclusions is not None:
        inputs["held"] = scope.exclusions.digest
    kind = {"kind": pseudo.summary["kind"]} if "kind" in pseudo.summary else {}
    settings = {"seed": SEED, "group_rows": GROUP_ROWS, **({"check": True} if check else {}), **kind}

    def work(step: Step) -> Output:
        picks = ChosenPicks(
            arrange(run, f"{label} {verb_of(pseudo)}", pseudo, scope.collection), scope.collection.masks
        )
        return _gather(run, label, GatherJob(step, scope, classes, picks, check=check), kind)

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
    if scope.chosen is not None:
        inputs["only"] = scope.chosen.digest

    def work(step: Step) -> Output:
        scope.collection.class_indices(classes)  # what is wrong with the labels of all is said before any image is read
        return _gather(run, label, GatherJob(step, scope, classes, TruePicks(scope, classes)), {})

    record = StepRecord("gather", REVISION, settings, inputs)
    output = run.find_or_run_step(label, record, work)
    check_labelled(label, run.store.step(record), output, scope, classes)
    return output


def training_set(output: Output, store: Store, classes: ClassList) -> TrainingSet:
    """The training set that a gather step made. Raises ValueError when it is of other classes."""
    check_classes(output, store, classes)
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


def _gather(run: Run, label: str, job: GatherJob, kind: dict[str, str]) -> Output:
    started, step = time.time(), job.step
    parts = step.found_parts()
    groups = group_shards(*job.picks.counts(), GROUP_ROWS, job.seed)
    progress = Progress(label, len(groups), "training shards", done=len(parts))
    missing = (group for group in groups if group.unit not in parts)
    for part in FanOut(run, label, step).map(gather_group, missing, job):
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
        **kind,
    }
    return step.commit(parts.values(), summary, started)


def gather_group(group: ShardGroup, job: GatherJob) -> Part:
    """Read the picked images of one group's shards, shuffle them, and put them as one training shard."""
    picked = job.picks.read(group.shards)
    form = schema.training(len(job.classes), job.classes.hash, mask="mask" in picked.column_names)
    kept = [form.empty_table()]
    left_out: list[tuple[int, int, str, str]] = []
    shards = picked["shard"].to_numpy()
    for shard, start, count in zip(*np.unique(shards, return_index=True, return_counts=True), strict=True):
        picks = picked.slice(start, count)
        rows = picks["row"].to_numpy()
        batches = job.scope.manifest.read(int(shard), np.unique(rows))
        images = pa.Table.from_batches(list(batches), schema=schema.IMAGES)
        # an image chosen for two classes is two rows
        images = images.take(np.searchsorted(images["row"].to_numpy(), rows))
        columns = {**{name: picks[name] for name in picks.column_names}, "key": images["key"], "image": images["image"]}
        table = pa.table([columns[name] for name in form.names], schema=form)
        if job.check:
            reasons = [
                reason_against(job, *one) for one in zip(*(table[name] for name in ("key", "image")), strict=True)
            ]
            if "mask" in picked.column_names:
                pairs = zip(reasons, table["image"], table["mask"], strict=True)
                reasons = [reason or mask_reason(image, mask, len(job.classes)) for reason, image, mask in pairs]
            left_out += [
                (int(shard), int(row), key, reason)
                for row, key, reason in zip(rows, images["key"].to_pylist(), reasons, strict=True)
                if reason is not None
            ]
            table = table.filter(pa.array([reason is None for reason in reasons]))
        kept.append(table)
    table = pa.concat_tables(kept)
    table = table.take(np.random.default_rng([job.seed, group.unit]).permutation(table.num_rows))
    stats = {"draws": int(np.sum(table["count"].to_numpy())), "left_out": len(left_out)}
    if left_out:
        job.step.put_sidecar(
            "quarantine", group.unit, pa.table(list(zip(*left_out, strict=True)), schema=schema.QUARANTINE)
        )
    # row groups of 256: a stream reads a few at a time; JPEGs do not compress
    return job.step.put_part(
        group.unit, table, stats, compression="none", row_group_size=256, use_dictionary=["classes"]
    )


def reason_against(job: GatherJob, key: pa.Scalar, image: pa.Scalar) -> str | None:
    """Why an encoded image is rejected or excluded; None for one that can be learned from."""
    try:
        decode(image.as_buffer(), CHECK_FRAME)
    except RejectedImageError as rejected:
        return str(rejected)
    return job.scope.reason(key.as_py(), image.as_buffer())


def mask_reason(image: pa.Scalar, mask: pa.Scalar, num_classes: int) -> str | None:
    """Why a true mask is rejected; None for one that belongs to its image."""
    try:
        values = decode_mask_full_size(mask.as_buffer())
    except RejectedImageError as rejected:
        return str(rejected)
    if strange := sorted(set(np.unique(values).tolist()) - {*range(num_classes), IGNORE}):
        return f"mask of other classes: index {strange[0]}, and there are {num_classes} classes"
    size = decode_full_size(image.as_buffer()).shape[:2]
    return None if values.shape == size else f"mask of another size: {values.shape} for an image of {size}"
