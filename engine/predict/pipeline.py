"""Predict on Ray Data: the rows that are sharded are *shards*, one a block; an actor runs each from its file to its committed part.

Pixels never enter the object store: what travels is a shard's number in and a report of a few numbers out. Failures come back as values
(`ground/failures.py`); `FailureHandler` acts on them.
"""

import gc
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError

from engine.ground import allocator
from engine.ground.budget import RejectBudget, RejectLimit, TooManyRejectsError
from engine.ground.failure_handler import FailureHandler
from engine.ground.failures import Failure, classify_worker_error
from engine.ground.fanout import TRIES, FanOut, TaskResources
from engine.ground.progress import Progress, log_event
from engine.ground.record import StepRecord, canonical
from engine.ground.resources import ActorPoolSpec, pool_sizes, predict_actors
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, seconds_from_name
from engine.ground.watchdog import with_stall_timeout
from engine.images.scope import Scope
from engine.models.fetch import fetch_model
from engine.predict.bottleneck import bottleneck
from engine.predict.int8 import load_quantised
from engine.predict.job import PARQUET, PredictJob
from engine.predict.predict_plan import FEW_IMAGES, is_worth_measuring, log_plan, make_plan, unmeasured_plan
from engine.predict.predictor import CLASSES, Predictor
from engine.predict.shard_predictor import PredictedShard
from engine.settings.block import identity
from engine.settings.predict import PredictSettings
from engine.tasks.answers import Answers

__all__ = ["PARQUET", "REVISION", "PredictActor", "TooManyRejectsError", "pass_over", "predict"]

REVISION = 2
TASK_IMAGES = FEW_IMAGES
"""Images up to which a step runs as plain tasks."""


class PredictActor:
    """One process of the pool: holds the teacher, labels the shards it is handed, one part each.

    It never raises: what goes wrong, in its constructor too, is the report of the shard. An actor whose constructor raises
    would be made again, with the cause in a log that nobody reads.
    """

    def __init__(self, job: PredictJob) -> None:
        self.step, self.parquet = job.step, job.parquet
        self.write = 0.0
        self.broken: Failure | None = None
        try:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            torch.set_num_threads(1 if job.decode_threads else job.threads)  # decoders are threads of their own
            quantised = load_quantised(job.step) if job.settings.backend == "int8" else None
            predictor = Predictor(fetch_model(job.model, job.step.fs), job.settings, device, quantised, job.answers)
            self.labeller = job.worker(job.scope, predictor, job.decode_threads)
            allocator.keep_freed()
        except Exception as error:
            self.broken = classify_worker_error(error, job.step.uri)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"report": [canonical(self._label(int(shard))) for shard in batch["shard"]]}

    def _label(self, shard: int) -> dict[str, Any]:
        if self.broken is not None:
            return {"failure": self.broken.record()}
        try:
            return {"part": vars(self._commit(self.labeller(shard)))}
        except Exception as error:
            return {"failure": classify_worker_error(error, self.step.uri).record()}

    def _commit(self, labelled: PredictedShard) -> Part:
        if labelled.quarantine.num_rows:
            self.step.put_sidecar("quarantine", labelled.shard, labelled.quarantine)
        sidecar = {}
        if labelled.sidecar is not None:
            folder, rows = labelled.sidecar
            sidecar = {folder: self.step.put_sidecar(folder, labelled.shard, rows)}
        stats = {"reasons": labelled.reasons, "rejected": labelled.rejected, "excluded": labelled.excluded, **sidecar}
        labelled.seconds.write = self.write  # a part's own writing ends after its name is made
        started = time.perf_counter()
        part = self.step.put_part(labelled.shard, labelled.predictions, stats, vars(labelled.seconds), **self.parquet)
        self.write = time.perf_counter() - started
        return part


def predict_shards(shards: list[int], job: PredictJob) -> list[dict[str, Any]]:
    """The reports of some shards, labelled one after the other as an actor labels them, in a process that others use after it."""
    with allocator.keeping_freed():
        worker = PredictActor(job)
        return [worker._label(shard) for shard in shards]


def predict(
    run: Run, label: str, model: Output, scope: Scope, settings: PredictSettings, answers: Answers = CLASSES
) -> Output:
    """Predictions of `model` for every image of `scope` that is neither rejected nor excluded: one part per shard (schema.predictions).

    What was predicted until a failure stays. Raises TooManyRejectsError when more than `scope.max_rejected_percent` of the images seen are
    rejected, ValueError for user errors, StoreError when the store cannot be written, WorkersFailedError when a failure budget is spent, and
    StalledError when nothing is finished for `cluster.label.stall_minutes`.
    """
    inputs = {"model": model.digest, **scope.inputs}
    corruption = {} if scope.corruption is None else {"corruption": list(scope.corruption)}

    def work(step: Step) -> Output:
        return pass_over(run, label, PredictJob(step, scope, model, settings, answers=answers))

    record = StepRecord("predict", REVISION, {**identity(settings), **answers.identity, **corruption}, inputs)
    output = run.find_or_run_step(label, record, work)
    found = output.summary  # the limit is no part of the step, and may have been another when it was made
    limit = RejectLimit.of_step(scope.max_rejected_percent, label, output.step)
    limit.check(found["images"] + found["rejected"], found["reasons"])
    return output


def pass_over(run: Run, label: str, job: PredictJob) -> Output:
    """Make the parts that the job's step lacks, one per shard, and commit it. Raises as `predict` does."""
    return _Labelling(run, label, job).work()


class _Labelling:
    """One labelling step: hands out what is missing, wave by wave and pass by pass, and acts on what fails."""

    def __init__(self, run: Run, label: str, job: PredictJob) -> None:
        self.run, self.cluster, self.label, self.job = run, run.cluster, label, job
        self.step, self.scope, self.shards = job.step, job.scope, job.scope.shards
        self.parts = self.step.found_parts()
        limit = RejectLimit.of_step(self.scope.max_rejected_percent, label, self.step.name)
        self.budget = RejectBudget(limit, self.parts.values())
        self.failures = FailureHandler(label, self.step.uri, run.cluster.retries)
        self.spent: Counter[str] = Counter()
        self.progress = Progress(label, len(self.shards), "shards", done=len(self.parts))

    def work(self) -> Output:
        started = time.time()
        actors = predict_actors(self.cluster, len(self._missing()))
        plan = self.step.plan(lambda: self._start(actors))
        log_plan(self.label, plan)
        self.job = replace(self.job, settings=self.job.settings.model_copy(update=plan["predict"]))
        while missing := self._missing():
            before = len(self.parts), self.failures.counts
            for wave in np.array_split(missing, -(-len(missing) // self.cluster.label.wave_shards)):
                actors = predict_actors(self.cluster, len(wave))  # machines come and go between waves
                self._wave(wave, actors)
                if not self._is_small:  # it takes half a second
                    gc.collect()  # what Ray Data leaves of a wave points to itself, and would wait for long
            if before == (len(self.parts), self.failures.counts):
                raise RuntimeError(f"{len(missing)} shards came back neither labelled nor failed, first {missing[:5]}")
        if self.budget.excluded:
            log_event(
                self.label, f"{self.budget.excluded} pool images excluded: they stand in a labelled or evaluation set"
            )
        summary = {"model": self.job.model.step, **self.budget.summary()}
        if not self._is_small and (bound := bottleneck(self.spent)):
            log_event(self.label, bound.line())
        return self.step.commit(self.parts.values(), summary, started)

    @property
    def _is_small(self) -> bool:
        return self.scope.num_images <= TASK_IMAGES

    def _missing(self) -> list[int]:
        return [int(shard) for shard in self.shards if shard not in self.parts]

    def _start(self, actors: ActorPoolSpec) -> dict[str, Any]:
        """The plan; where it is measured, by a task on a worker's resources."""
        if not is_worth_measuring(self.job):
            return unmeasured_plan(self.job)
        return next(self._tasks(actors).map(make_plan, [replace(self.job, threads=actors.threads)], actors.count))

    def _tasks(self, actors: ActorPoolSpec) -> FanOut:
        """Tasks that take what an actor takes, and whose failures count together with those of the actors."""
        return FanOut(self.run, self.label, self.step, TaskResources(actors.cpus, actors.gpus), self.failures)

    def _wave(self, wave: np.ndarray, actors: ActorPoolSpec) -> None:
        """Label the shards of one wave on a pool of actors, taking each part down as it is committed."""
        self.failures.watch()
        try:
            with closing(with_stall_timeout(self._reports(wave, actors), self.cluster.label.stall_minutes)) as reports:
                for report in reports:
                    if "part" in report:
                        self._take(Part(**report["part"]))
                    else:
                        self.failures.handle(Failure(**report["failure"]))
        except RayError as error:
            self.failures.handle_error(error)
            for part in self.step.found_parts(known=self.parts).values():  # put, but their reports were lost
                self._take(part)

    def _reports(self, wave: np.ndarray, actors: ActorPoolSpec) -> Generator[dict[str, Any]]:
        """What becomes of each shard of a wave, as it is known."""
        decode_threads = self.cluster.label.decode_threads
        if decode_threads is None:
            decode_threads = actors.threads if actors.gpus else 0
        job = replace(self.job, threads=actors.threads, decode_threads=decode_threads)
        return self._of_tasks(job, wave, actors) if self._is_small else self._of_actors(job, wave, actors)

    def _of_tasks(self, job: PredictJob, wave: np.ndarray, actors: ActorPoolSpec) -> Generator[dict[str, Any]]:
        """One task per worker: no pool of actors to start, which takes longer than few images do."""
        groups = (shards.tolist() for shards in np.array_split(wave, min(actors.count, len(wave))))
        for reports in self._tasks(actors).map(predict_shards, groups, job):
            yield from reports

    def _of_actors(self, job: PredictJob, wave: np.ndarray, actors: ActorPoolSpec) -> Generator[dict[str, Any]]:
        shards = ray.data.from_items([{"shard": int(shard)} for shard in wave], override_num_blocks=len(wave))
        sizes = pool_sizes(actors.count, self.cluster.label.max_workers)
        restarts: Callable[[], dict[str, Any]] = partial(
            dict, max_restarts=self.cluster.retries.max_failures, max_task_retries=TRIES - 1
        )
        with warnings.catch_warnings():
            # both ways to bound an actor's restarts are deprecated, and Ray names no third
            warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
            labelled = shards.map_batches(
                PredictActor,
                fn_constructor_kwargs={"job": job},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=sizes.minimum,
                    max_size=sizes.maximum,
                    initial_size=sizes.initial,
                    max_tasks_in_flight_per_actor=2,
                    enable_true_multi_threading=True,  # one call at a time all the same, but in the main thread: its heap alone keeps large blocks
                ),
                num_cpus=actors.cpus,
                num_gpus=actors.gpus,
                ray_remote_args_fn=restarts,
            )
        for row in labelled.iter_rows():
            yield json.loads(row["report"])

    def _take(self, part: Part) -> None:
        self.parts[part.unit] = part
        self.spent.update(seconds_from_name(part.name))
        self.progress.add(1, part.rows, part.stats["rejected"])
        self.budget.spend(part)
