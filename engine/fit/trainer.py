"""Fit on Ray Train: the plain-torch loop in as many workers as asked for, checkpoints in the step's folder, the model as the step's output.

A killed worker restarts from the last checkpoint by itself; a killed driver does so when the same command runs again, because the trainer's name
and storage are those of the step. One worker on the CPUs of an embedded local Ray runs in the driver (`checkpoints.LocalReporter`).
"""

import gc
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from engine.fit.checkpoints import FOLDER, NUM_TO_KEEP, LocalReporter, TrainReporter
from engine.fit.losses import refuse_pairing
from engine.fit.progress import WriteProgress, show_progress
from engine.fit.source import Source
from engine.fit.trackers import Place, Tracking
from engine.fit.worker import ENDED, FitJob, train_worker
from engine.ground import allocator, storage
from engine.ground.failures import FailureBudget, FailureCounts, WorkersFailedError, classify_worker_error, decide_retry
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.resources import cpus_each, node_cpus
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, Store, StoreError
from engine.labels.classes import ClassList
from engine.models.build import has_fixed_size, with_statistics
from engine.models.checkpoint import read_config
from engine.models.fetch import FILES, fetch_model
from engine.settings.cluster import ClusterSettings
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings

REVISION = 3
RESIZE_SECONDS = 60.0
"""How often an elastic fit looks for machines that came."""


@dataclass(frozen=True)
class FitSpec:
    """What is trained: an architecture on the classes, how, and the fitted step whose weights it starts from (default: random weights)."""

    model: ModelSettings
    settings: FitSettings
    classes: ClassList
    init: Output | None = None


def fit(run: Run, label: str, spec: FitSpec, streams: Mapping[str, Source]) -> Output:
    """A model trained on named streams, saved in the timm hub layout below the step.

    `streams`: the source of every stream of `spec.settings.batch`. Raises ValueError when a stream is missing, unknown or empty.
    """
    model, settings, classes, init = start_model(spec, run.store), spec.settings, spec.classes, spec.init
    check_streams(label, settings, streams)
    run.cluster.refuse_uneven(label, settings.batch)
    inputs = {name: source.digest for name, source in streams.items()}
    if init is not None:
        inputs["init"] = init.digest
    identified: dict[str, Any] = {"model": model, "fit": settings, "classes": classes.hash}
    if init is not None and is_resized(model, init, run.store):
        identified["resized"] = True
    if kinds := {name: kind for name, kind in kinds_of(streams).items() if kind != "distribution"}:
        identified["kinds"] = kinds

    def work(step: Step) -> Output:
        started = time.time()
        tracking = Tracking(list(run.cluster.train.trackers), Place(run.store, run.name, label, step.name))
        progress = WriteProgress(step, tracking)
        scaling = train_workers(run.cluster, ray.cluster_resources(), node_cpus())
        in_driver = runs_in_driver(run.cluster, bool(scaling.use_gpu))
        job = FitJob(
            step,
            model,
            settings,
            dict(streams),
            tuple(classes.names),
            init.step if init is not None else None,
            LocalReporter(step, progress.write) if in_driver else TrainReporter(),
            int(scaling.resources_per_worker["CPU"]) if in_driver else None,  # type: ignore[index,arg-type]
        )
        with show_progress(label, step, settings.steps):
            metrics = (
                train_in_driver(run.cluster, job)
                if in_driver
                else train_on_workers(run.cluster, job, scaling, progress)
            )
        if "model" not in metrics:
            raise RuntimeError(f"{label}: training ended without a model; its logs are in {step.uri}/{FOLDER}")
        parts = [_model_part(step, index, f"{metrics['model']}/{name}") for index, name in enumerate(FILES)]
        output = step.commit(parts, metrics, started)
        # checkpoints are of no use once the model is committed, and not before
        step.fs.delete_dir(f"{step.folder}/{FOLDER}")
        return output

    return run.find_or_run_step(label, StepRecord("fit", REVISION, identified, inputs), work)


def start_model(spec: FitSpec, store: Store) -> ModelSettings:
    """The model of `spec`, its pixels normalised as those were that its initial weights learnt from."""
    if spec.init is None:
        return spec.model
    return with_statistics(spec.model, read_config(fetch_model(spec.init, store.fs)).settings)


def is_resized(model: ModelSettings, init: Output, store: Store) -> bool:
    """Whether the initial weights of a network of fixed image size are those of another size, and have to be resized."""
    before = read_config(fetch_model(init, store.fs)).settings.img_size
    return has_fixed_size(model.model) and before != model.img_size


def train_on_workers(
    cluster: ClusterSettings, job: FitJob, scaling: ScalingConfig, progress: WriteProgress
) -> dict[str, Any]:
    """Train on Ray Train's workers; returns the last metrics. Raises ValueError for user errors, StoreError for a store that cannot be written."""
    step = job.step
    step.put_json(ENDED, None)  # that of an earlier attempt
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=scaling,
        torch_config=TorchConfig(backend="nccl" if scaling.use_gpu else "gloo"),
        run_config=RunConfig(  # type: ignore[call-arg]  # Ray's stubs still describe Train v1
            name=FOLDER,
            storage_path=step.folder,
            storage_filesystem=step.fs,
            failure_config=FailureConfig(  # type: ignore[call-arg]
                max_failures=cluster.retries.max_failures, max_preemption_failures=cluster.retries.max_preemptions
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=NUM_TO_KEEP),
            callbacks=[progress],  # type: ignore[list-item]
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        metrics = dict(trainer.fit().metrics or {})
    except WorkerGroupError as error:
        if (user_error := user_error_of(error, step)) is not None:
            raise user_error from error
        raise
    if (ended := step.read_json(ENDED)) is not None:
        raise ValueError(ended["reason"])
    return metrics


def runs_in_driver(cluster: ClusterSettings, use_gpu: bool) -> bool:
    """Whether a fit needs none of Ray Train's processes: one worker of fixed number, on the CPUs of the Ray that this driver started."""
    embedded = cluster.address is None and "RAY_ADDRESS" not in os.environ
    is_driver = ray.get_runtime_context().worker.mode == ray.SCRIPT_MODE
    one = cluster.train.workers == 1 and cluster.train.min_workers is None
    return cluster.train.in_driver and embedded and is_driver and one and not use_gpu


def train_in_driver(cluster: ClusterSettings, job: FitJob) -> dict[str, Any]:
    """Train in this process with Ray Train's local mode; returns the last metrics.

    A crash is retried from the last checkpoint up to `cluster.retries.max_failures` times. Raises as `train_on_workers` does.
    """
    budgets, history = FailureBudget(cluster.retries.max_failures, cluster.retries.max_preemptions), FailureCounts()
    threads = torch.get_num_threads()
    while True:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job},
            scaling_config=ScalingConfig(num_workers=0, use_gpu=False),
        )
        try:
            with allocator.keeping_freed():
                return dict(trainer.fit().metrics or {})
        except Exception as error:
            failure = classify_worker_error(error, job.step.uri)
            history = history.after(failure)
            decision = decide_retry(failure, history, budgets)
            if failure.kind == "user_error":
                raise
            if failure.kind == "store":
                raise StoreError(failure.detail) from error
            if decision.action == "give_up":
                raise WorkersFailedError(f"{decision.reason}. The last failure:\n{failure.trace}") from error
            log_event(
                job.step.name, f"{decision.reason}; resuming from the last checkpoint: {failure.detail.splitlines()[0]}"
            )
        finally:
            torch.set_num_threads(threads)
            gc.collect()  # streams hold threads and decoded sets in cycles


def user_error_of(error: WorkerGroupError, step: Step) -> ValueError | None:
    """The user error among the workers' errors, if any: when one rank ends, the others fail because of it."""
    for raised in error.worker_failures.values():
        failure = classify_worker_error(
            getattr(raised, "_base_exc", raised), step.uri
        )  # Ray wraps it, with its traceback as text
        if failure.kind in ("user_error", "store"):
            return StoreError(failure.detail) if failure.kind == "store" else ValueError(failure.detail)
    return None


def kinds_of(streams: Mapping[str, Source]) -> dict[str, str]:
    """What the targets of each labelled stream are (`labels.tables.Kind`)."""
    return {name: source.target_kind for name, source in streams.items() if source.target_kind is not None}


def check_streams(label: str, settings: FitSettings, streams: Mapping[str, Source]) -> None:
    if settings.batch.keys() != streams.keys():
        raise ValueError(
            f"{label}: batch names the streams {sorted(settings.batch)}, but this fit has {sorted(streams)}: give each its images a step"
        )
    if settings.objective == "supervised":
        refuse_pairing(settings.loss, kinds_of(streams))
    for name, source in streams.items():
        if source.draws == 0:
            raise ValueError(
                f"{label}: the stream {name!r} is empty: nothing passed the selection; lower select.threshold or raise select.per_class"
            )
        if source.draws < settings.batch[name]:
            log_event(
                label,
                f"the stream {name!r} has {source.draws:,} images for a batch of {settings.batch[name]:,}: each is in a batch several times."
                " Lower its batch, or select more",
            )


def _model_part(step: Step, unit: int, path: str) -> Part:
    data = storage.get(step.fs, f"{step.folder}/{path}")
    return Part(unit, path, 0, len(data), hashlib.sha256(data).hexdigest())


def train_workers(
    cluster: ClusterSettings, resources: Mapping[str, float], nodes: Sequence[float] | None = None
) -> ScalingConfig:
    """Workers of a fit: one GPU each where there are GPUs, else as many CPUs as each can have on one machine, `nodes` being the CPUs of every
    machine (one has all when not given). With `cluster.train.min_workers` the fit is elastic: it restarts at its last checkpoint with as many workers
    as there are machines for. `cluster.label.gpus_per_worker` asks for GPUs that are still to come.
    """
    least = cluster.train.min_workers or cluster.train.workers
    use_gpu = resources.get("GPU", 0) >= least or bool(cluster.label.gpus_per_worker)
    share = 1 if use_gpu else cpus_each(nodes or [resources.get("CPU", 1)], cluster.train.workers)
    cpus = float(cluster.train.cpus or share)
    return ScalingConfig(
        num_workers=cluster.train.workers if least == cluster.train.workers else (least, cluster.train.workers),  # type: ignore[arg-type]
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,  # type: ignore[call-arg]
        use_gpu=use_gpu,
        resources_per_worker={"CPU": cpus, **({"GPU": 1.0} if use_gpu else {})},
    )
