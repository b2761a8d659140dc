"""Predict on Ray Data: the rows that are sharded are *shards*, one a block; an actor runs each from its file to its committed part.

Pixels never enter the object store: what travels is a shard's number in and a report of a few numbers out. Failures come back as values
(`failures.py`); `_Labelling` is the one place that acts on them.
"""

import gc
import json
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError

from engine import heap
from engine.images.collection import Collection
from engine.images.overlap import HeldOut
from engine.images.scope import Scope
from engine.images.subset import Subset
from engine.models.fetch import fetch_model
from engine.predict.budget import RejectBudget, TooManyRejectsError
from engine.predict.failures import (
    Budgets,
    Failure,
    History,
    WorkersFailedError,
    decide,
    of_ray,
    of_worker,
    unreachable,
)
from engine.predict.int8 import kept
from engine.predict.labelling import LabelledShard, ShardLabeller
from engine.predict.pace import bottleneck
from engine.predict.predictor import Predictor
from engine.predict.start import announce, start
from engine.predict.watchdog import watched
from engine.progress import Progress, say
from engine.resources import ANYWHERE, Actors, labelling_actors, pool_sizes
from engine.run import Run
from engine.settings import PredictSettings
from engine.steps import Output, Part, Step, StoreError, canonical, costs

__all__ = ["REVISION", "LabelActor", "TooManyRejectsError", "predict"]

REVISION = 2
PARQUET: dict[str, Any] = {
    "column_encoding": {"row": "DELTA_BINARY_PACKED", "classes": "BYTE_STREAM_SPLIT", "scores": "BYTE_STREAM_SPLIT"},
    "use_dictionary": ["shard"],
}
SHARD_TRIES = 2
"""How often Ray itself hands out a shard whose worker dies, before the driver hears of it."""

NOTICED_WITHIN = 30.0
"""Seconds after which Ray knows of a machine that is lost (five health checks missed)."""


class LabelActor:
    """One process of the pool: holds the teacher, labels the shards it is handed, one part each.

    It never raises: what goes wrong, in its constructor too, is the report of the shard. An actor whose constructor raises
    would be made again, with the cause in a log that nobody reads.
    """

    def __init__(
        self,
        step: Step,
        collection: Collection,
        model: Output,
        settings: PredictSettings,
        held: HeldOut | None,
        threads: int,
        decode_threads: int,
        only: Subset | None = None,
    ) -> None:
        self.step = step
        self.write = 0.0
        self.broken: Failure | None = None
        try:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            torch.set_num_threads(1 if decode_threads else threads)  # decoders are threads of their own
            quantised = kept(step) if settings.backend == "int8" else None
            predictor = Predictor(fetch_model(model, step.fs), settings, device, quantised)
            self.labeller = ShardLabeller(Scope(collection, held, only), predictor, decode_threads)
            heap.keep_freed()
        except Exception as error:
            self.broken = of_worker(error, step.uri)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"report": [canonical(self._label(int(shard))) for shard in batch["shard"]]}

    def _label(self, shard: int) -> dict[str, Any]:
        if self.broken is not None:
            return {"failure": self.broken.record()}
        try:
            return {"part": vars(self._commit(self.labeller(shard)))}
        except Exception as error:
            return {"failure": of_worker(error, self.step.uri).record()}

    def _commit(self, labelled: LabelledShard) -> Part:
        if labelled.quarantine.num_rows:
            self.step.put_beside("quarantine", labelled.shard, labelled.quarantine)
        stats = {"reasons": labelled.reasons, "rejected": labelled.rejected, "excluded": labelled.excluded}
        labelled.seconds.write = self.write  # a part's own writing ends after its name is made
        started = time.perf_counter()
        part = self.step.put_part(labelled.shard, labelled.predictions, stats, vars(labelled.seconds), **PARQUET)
        self.write = time.perf_counter() - started
        return part


def predict(
    run: Run,
    label: str,
    model: Output,
    collection: Collection,
    settings: PredictSettings,
    held: HeldOut | None = None,
    max_rejected_percent: float = 1.0,
    only: Subset | None = None,
) -> Output:
    """Predictions of `model` for every usable image of `collection` that is not held out: one part a shard (schema.predictions).
    `only`: the images to label, where not all are wanted; shards without any are not read.

    What was labelled until a failure stays. Raises TooManyRejectsError when more than `max_rejected_percent` of the images seen are unusable,
    ValueError for what a person can mend, StoreError when the store cannot be written, WorkersFailedError when a failure budget is spent, and
    StalledError when nothing is finished for `cluster.stall_minutes`.
    """
    inputs = {"model": model.digest, "images": collection.digest, "held": held.digest if held else "none"}
    if only is not None:
        inputs["only"] = only.digest

    def work(step: Step) -> Output:
        return _Labelling(run, label, step, model, collection, settings, held, max_rejected_percent, only).work()

    return run.step(label, "predict", REVISION, settings.fingerprinted(), inputs, work)


class _Labelling:
    """One labelling step: hands out what is missing, wave by wave and pass by pass, and acts on what fails."""

    def __init__(
        self,
        run: Run,
        label: str,
        step: Step,
        model: Output,
        collection: Collection,
        settings: PredictSettings,
        held: HeldOut | None,
        max_rejected_percent: float,
        only: Subset | None,
    ) -> None:
        self.cluster, self.label, self.step, self.model = run.cluster, label, step, model
        self.collection, self.settings, self.held = collection, settings, held
        self.only = only
        self.shards = only.shards if only is not None else np.arange(collection.manifest.num_shards)
        self.parts = step.found_parts()
        self.budget = RejectBudget(max_rejected_percent, self.parts.values())
        self.budgets = Budgets(run.cluster.max_failures, run.cluster.max_preemptions)
        self.history = History()
        self.spent: Counter[str] = Counter()
        self.progress = Progress(label, len(self.shards), "shards", done=len(self.parts))

    def work(self) -> Output:
        started = time.time()
        actors = labelling_actors(self.cluster, len(self._missing()))
        plan = self.step.plan(lambda: self._start(actors))
        announce(self.label, plan)
        obeyed = self.settings.model_copy(update=plan["predict"])
        while missing := self._missing():
            before = len(self.parts), self.history
            for wave in np.array_split(missing, -(-len(missing) // self.cluster.wave_shards)):
                actors = labelling_actors(self.cluster, len(wave))  # machines come and go between waves
                self._wave(wave, obeyed, actors)
                gc.collect()  # what Ray Data leaves of a wave points to itself, and would wait for long
            if before == (len(self.parts), self.history):
                raise RuntimeError(f"{len(missing)} shards came back neither labelled nor failed, first {missing[:5]}")
        if self.budget.excluded:
            say(self.label, f"{self.budget.excluded} pool images excluded: they stand in a labelled or evaluation set")
        summary = {"model": self.model.step, **self.budget.summary()}
        if told := bottleneck(self.spent):
            say(self.label, told.line())
        return self.step.commit(self.parts.values(), summary, started)

    def _missing(self) -> list[int]:
        return [int(shard) for shard in self.shards if shard not in self.parts]

    def _start(self, actors: Actors) -> dict[str, Any]:
        """The plan, made by a task on a worker's resources."""
        task = ray.remote(
            scheduling_strategy=ANYWHERE,
            num_cpus=actors.cpus,
            num_gpus=actors.gpus,
            max_retries=self.cluster.max_failures,
        )(start)
        manifest = self.collection.manifest
        while True:
            alive = _machines()
            try:
                plan = ray.get(
                    task.remote(self.step, manifest, self.model, self.settings, actors.threads, actors.count)
                )
                asked = {} if self.only is None else {"shards": len(self.shards), "images": len(self.only.addresses)}
                return {**plan, **asked}
            except RayError as error:
                self._act(of_ray(error, _lost(alive, error), self.step.uri), error)

    def _wave(self, wave: np.ndarray, settings: PredictSettings, actors: Actors) -> None:
        """Label the shards of one wave on a pool of actors, taking each part down as it is committed."""
        alive = _machines()
        try:
            with closing(watched(self._reports(wave, settings, actors), self.cluster.stall_minutes)) as reports:
                for report in reports:
                    if "part" in report:
                        self._take(Part(**report["part"]))
                    else:
                        self._act(Failure(**report["failure"]))
        except RayError as error:
            self._act(of_ray(error, _lost(alive, error), self.step.uri), error)
            for part in self.step.found_parts(besides=self.parts).values():  # put, but their reports were lost
                self._take(part)

    def _reports(self, wave: np.ndarray, settings: PredictSettings, actors: Actors) -> Generator[dict[str, Any]]:
        shards = ray.data.from_items([{"shard": int(shard)} for shard in wave], override_num_blocks=len(wave))
        threads = self.cluster.decode_threads
        sizes = pool_sizes(actors.count, self.cluster.max_workers)
        restarts: Callable[[], dict[str, Any]] = partial(
            dict, max_restarts=self.cluster.max_failures, max_task_retries=SHARD_TRIES - 1
        )
        with warnings.catch_warnings():
            # both ways to bound an actor's restarts are deprecated, and Ray names no third
            warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated")
            labelled = shards.map_batches(
                LabelActor,
                fn_constructor_kwargs={
                    "step": self.step,
                    "collection": self.collection,
                    "model": self.model,
                    "settings": settings,
                    "held": self.held,
                    "threads": actors.threads,
                    "decode_threads": threads if threads is not None else actors.threads if actors.gpus else 0,
                    "only": self.only,
                },
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=sizes.least,
                    max_size=sizes.most,
                    initial_size=sizes.first,
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
        self.spent.update(costs(part.name))
        self.progress.add(1, part.rows, part.stats["rejected"])
        self.budget.spend(part)

    def _act(self, failure: Failure, error: BaseException | None = None) -> None:
        """Count a failure, decide, say so, and either return, to go on, or raise."""
        self.history = self.history.after(failure)
        decision = decide(failure, self.history, self.budgets)
        if decision.action == "retry":
            say(
                self.label,
                f"{decision.reason}; its shards are handed out again: {failure.detail.splitlines()[0][:300]}",
            )
            return
        if failure.kind == "mistake":
            raise ValueError(failure.detail) from error
        if failure.kind == "target":
            raise StoreError(failure.detail) from error
        raise WorkersFailedError(
            f"{decision.reason}; what was labelled is kept. The last failure:\n{failure.trace or failure.detail}"
        ) from error


def _lost(alive: set[str], error: RayError) -> int:
    """How many of the machines that were `alive` are gone. A worker that does not answer may be the first sign: Ray is given time to notice."""
    deadline = time.monotonic() + (NOTICED_WITHIN if unreachable(error) else 0.0)
    while not (gone := alive - _machines()) and time.monotonic() < deadline:
        time.sleep(1.0)
    return len(gone)


def _machines() -> set[str]:
    """Ids of the nodes that are alive."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
