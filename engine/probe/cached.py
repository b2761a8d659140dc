"""Predictions of a head from cached features: the table that `predict` writes, without a pixel being read."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.embed.pipeline import embed
from engine.embed.shard_embedder import features_of
from engine.ground import storage
from engine.ground.budget import RejectBudget, RejectLimit, count_reasons, is_excluded
from engine.ground.fanout import FanOut, TaskResources, chunks, task_slots
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, read_output, read_part
from engine.images.file_listing import without_credentials
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.models.checkpoint import class_names
from engine.models.fetch import fetch_model
from engine.predict.job import PARQUET
from engine.predict.pipeline import REVISION
from engine.predict.shard_predictor import Seconds
from engine.probe.heads import AnyHead, read_head
from engine.select.scores import pack
from engine.settings.block import identity
from engine.settings.embed import EmbedSettings
from engine.settings.predict import PredictSettings
from engine.tables import schema
from engine.tasks.answers import ClassAnswers

FROM_FEATURES = 1
"""Revision of what follows from a cache and a head; that of the verb is predict's."""
FEW_ROWS = 1 << 16
"""Images that the driver itself predicts; more are predicted on workers."""
ROWS = 4096
"""Images whose logits are computed at once."""


@dataclass(frozen=True)
class CachedJob:
    """Predict the images of `scope` from `features` with `head` and put the parts into `step`."""

    step: Step
    scope: Scope
    features: Output
    head: bytes
    classes: ClassList
    settings: PredictSettings


def predict_cached(run: Run, label: str, model: Output, scope: Scope, settings: PredictSettings) -> Output:
    """Predictions (schema.predictions) of the head `model` for every image of `scope` that has features and is not excluded: one part per shard.

    Features that the store lacks are made first. Raises ValueError for settings that a cache cannot serve, and as `embed` does.
    """
    if settings.views != "one":
        raise ValueError(
            f"predict.views={settings.views} averages a mirror image, of which no features are cached: use views=one"
        )
    backbone = read_output(run.store, model.summary["backbone"])
    if backbone is None:
        raise ValueError(
            f"{model.step}: its network {model.summary['backbone']} is no longer in the store. Fit it again."
        )
    features = embed(run, backbone, scope, EmbedSettings(**model.summary["embed"]))

    def work(step: Step) -> Output:
        head = storage.get(run.store.fs, f"{model.folder}/{model.summary['head']}")
        classes = ClassList(tuple(class_names(fetch_model(model, run.store.fs))))
        return predict_parts(run, label, model, CachedJob(step, scope, features, head, classes, settings))

    own = {name: value for name, value in identity(settings).items() if name not in ("backend", "decode")}
    corruption = {} if scope.corruption is None else {"corruption": list(scope.corruption)}
    inputs = {"model": model.digest, "features": features.digest, **scope.inputs}
    record = StepRecord("predict", REVISION, {**own, **corruption, "from_features": FROM_FEATURES}, inputs)
    output = run.find_or_run_step(label, record, work)
    found = output.summary
    limit = RejectLimit.of_step(scope.max_rejected_percent, label, output.step)
    limit.check(found["images"] + found["rejected"], found["reasons"])
    return output


def predict_parts(run: Run, label: str, model: Output, job: CachedJob) -> Output:
    """Make the parts that the step lacks and commit it."""
    started, step, scope = time.time(), job.step, job.scope
    step.plan(
        lambda: {
            "shards": len(scope.shards),
            "images": scope.num_images,
            "model": model.step,
            "manifest": scope.manifest.folder.rsplit("/", 1)[-1],
            "collection": without_credentials(scope.uri),
        }
    )
    parts = step.found_parts()
    budget = RejectBudget(RejectLimit.of_step(scope.max_rejected_percent, label, step.name), parts.values())
    wanted = set(scope.shards.tolist())
    missing = [part for part in job.features.parts(step.fs) if part.unit in wanted and part.unit not in parts]
    for made in _made(run, label, missing, job):
        for part in made:
            parts[part.unit] = part
            budget.spend(part)
    if budget.excluded:
        log_event(label, f"{budget.excluded} images excluded: also in a labelled or evaluation set")
    return step.commit(parts.values(), {"model": model.step, **budget.summary()}, started)


def _made(run: Run, label: str, missing: list[Part], job: CachedJob) -> Iterator[list[Part]]:
    """The parts as they are put, by the driver for few images, else by tasks."""
    if sum(part.rows for part in missing) <= FEW_ROWS:
        return (put_parts([part], job) for part in missing)
    groups = chunks(missing, 4 * task_slots(TaskResources()))
    return FanOut(run, label, job.step).map(put_parts, groups, job)


def put_parts(given: list[Part], job: CachedJob) -> list[Part]:
    """The predictions of some parts of the cache, each put as a part of its own."""
    head = read_head(job.head)
    return [put_one(part, head, job) for part in given]


def put_one(part: Part, head: AnyHead, job: CachedJob) -> Part:
    """The predictions of one shard, and its quarantine."""
    seconds, started = Seconds(), time.perf_counter()
    table = read_part(job.features, job.step.fs, part)
    quarantine = quarantine_in(job, part)
    if job.scope.chosen is not None:
        table, quarantine = (chosen_rows(job.scope, one) for one in (table, quarantine))
    kept, excluded = without_excluded(job.scope, part.unit, table)
    quarantine = pa.concat_tables([quarantine, excluded]).sort_by("row")
    seconds.read = time.perf_counter() - started
    started = time.perf_counter()
    predictions = predictions_of(kept, head, job)
    seconds.infer = time.perf_counter() - started
    if quarantine.num_rows:
        job.step.put_sidecar("quarantine", part.unit, quarantine)
    reasons = count_reasons(quarantine["reason"].to_pylist())
    excluded_count = sum(count for reason, count in reasons.items() if is_excluded(reason))
    stats = {"reasons": reasons, "rejected": quarantine.num_rows - excluded_count, "excluded": excluded_count}
    return job.step.put_part(part.unit, predictions, stats, vars(seconds), **PARQUET)


def predictions_of(table: pa.Table, head: AnyHead, job: CachedJob) -> pa.Table:
    """Predictions (schema.predictions) of a table of schema.features, row by row."""
    settings, answers = job.settings, ClassAnswers()
    top_p = answers.top_p(settings.top_p, len(job.classes))
    expected = schema.predictions(len(job.classes), job.classes.hash, top_p, settings.columns)
    if not table.num_rows:
        return expected.empty_table()
    found: list[tuple[npt.NDArray, ...]] = []
    with torch.inference_mode():
        for rows in torch.from_numpy(features_of(table).copy()).split(ROWS):
            answered = answers.of([head.logits(rows.float())], settings, top_p)
            odds, extra = (one.numpy().astype(np.float16) for one in (answered.odds, answered.extra))
            found.append((answered.classes.numpy(), odds, extra))
    classes, odds, extra = (np.concatenate(column) for column in zip(*found, strict=True))
    shard, row = (table[name].to_numpy() for name in ("shard", "row"))
    return pack(shard, row, classes, odds, expected, list(extra.T))


def quarantine_in(job: CachedJob, part: Part) -> pa.Table:
    """Images (schema.QUARANTINE) of a shard that could not be embedded."""
    if not part.stats["rejected"]:
        return schema.QUARANTINE.empty_table()
    path = f"{job.features.folder}/quarantine/{part.unit:08d}.parquet"
    return pq.read_table(path, filesystem=job.step.fs).replace_schema_metadata(None)


def chosen_rows(scope: Scope, table: pa.Table) -> pa.Table:
    """The rows that the scope reads."""
    assert scope.chosen is not None, "asked only of a scope of some images"
    return table.filter(pa.array(scope.chosen.holds(table["shard"].to_numpy(), table["row"].to_numpy())))


def without_excluded(scope: Scope, shard: int, table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of a table of schema.features that the scope does not exclude, and the others as schema.QUARANTINE with the reason."""
    exclusions = scope.exclusions
    if exclusions is None or not table.num_rows:
        return table, schema.QUARANTINE.empty_table()
    rows = table["row"].to_numpy()
    keys: list[str | None] = [None] * len(rows)
    if scope.manifest.has_keys:
        keys = list(scope.manifest.resolve(shard, rows))
    reasons = [exclusions.reason(key, content) for key, content in zip(keys, table["content"].to_pylist(), strict=True)]
    out = np.array([reason is not None for reason in reasons])
    if not out.any():
        return table, schema.QUARANTINE.empty_table()
    named = scope.manifest.resolve(shard, rows[out])
    aside = pa.table(
        [np.full(len(named), shard, np.int32), rows[out], named, [reason for reason in reasons if reason]],
        schema=schema.QUARANTINE,
    )
    return table.filter(pa.array(~out)), aside
