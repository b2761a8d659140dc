"""Fit on Ray Train: the plain-torch loop in as many workers as asked for, checkpoints in the step's folder, the model as the step's output.

A killed worker restarts from the last checkpoint by itself; a killed driver does so when the same command runs again, because the trainer's name
and storage are those of the step.
"""

import hashlib
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn

from engine.fit.loop import train
from engine.fit.losses import refuse_pairing
from engine.fit.objective import Context, create_objective
from engine.fit.pool_stream import PoolSource
from engine.fit.precision import choose_precision, cpu_gains_from_bf16
from engine.fit.streams import decode_size, open_stream
from engine.fit.trackers import Place, Tracking
from engine.gather.training_set import TrainingSet
from engine.ground import allocator, storage
from engine.ground.failures import classify_worker_error
from engine.ground.progress import log_event
from engine.ground.resources import cpus_each, node_cpus
from engine.ground.run import Run
from engine.ground.steps import Output, Part, Step, StoreError, read_output
from engine.labels.classes import ClassList
from engine.models import checkpoint as model_folder
from engine.models.checkpoint import LoadReport
from engine.models.fetch import FILES, fetch_model
from engine.settings.run import ClusterSettings, FitSettings, ModelSettings

REVISION = 1
STATE = "state.pt"
PROGRESS = "progress.json"
RESIZE_SECONDS = 60.0
"""How often an elastic fit looks for machines that came."""
FOLLOW_SECONDS = 5.0
LOADED = "loaded.json"
NOT_FINGERPRINTED = {"cache_bytes", "checkpoint_every", "log_every"}
"""Settings that change how a fit runs and not what it yields."""


LATER: dict[str, Any] = {"freeze": [], "freeze_steps": 0, "layer_decay": 1.0}
"""Settings that came later, and what they say of a fit that does not use them: such a fit keeps its name."""

Source = tuple[Output, TrainingSet] | PoolSource
"""What a stream draws from: a gather step and its training set, or a collection as it is."""


def fit(
    run: Run,
    label: str,
    model: ModelSettings,
    settings: FitSettings,
    streams: Mapping[str, Source],
    classes: ClassList,
    init: Output | None = None,
) -> Output:
    """A model trained on named streams, saved in the timm hub layout below the step.

    `streams`: for every stream of settings.batch its source; `init`: a fitted step whose weights the model starts from.
    Raises ValueError when a stream is missing, unknown or empty.
    """
    _check_streams(label, settings, streams)
    run.cluster.refuse_uneven(label, settings.batch)
    inputs = {
        name: (source if isinstance(source, PoolSource) else source[0]).digest for name, source in streams.items()
    }
    if init is not None:
        inputs["init"] = init.digest
    fingerprinted = {
        "model": model.model_dump(mode="json"),
        "fit": settings.model_dump(mode="json", exclude=NOT_FINGERPRINTED | unused_settings(settings)),
        "classes": classes.hash,
    }
    if kinds := {name: kind for name, kind in kinds_of(streams).items() if kind != "distribution"}:
        fingerprinted["kinds"] = kinds

    def work(step: Step) -> Output:
        started = time.time()
        config = {
            "step": step,
            "model": model.model_dump(),
            "settings": settings.model_dump(),
            "streams": {
                name: source if isinstance(source, PoolSource) else source[1] for name, source in streams.items()
            },
            "class_names": list(classes.names),
            "init": init.step if init is not None else None,
        }
        workers = train_workers(run.cluster, ray.cluster_resources(), node_cpus())
        tracking = Tracking(list(run.cluster.trackers), Place(run.store, run.name, label, step.name))
        trainer = TorchTrainer(
            train_worker,
            train_loop_config=config,
            scaling_config=workers,
            torch_config=TorchConfig(backend="nccl" if workers.use_gpu else "gloo"),
            run_config=RunConfig(  # type: ignore[call-arg]  # Ray's stubs still describe Train v1
                name="train",
                storage_path=step.folder,
                storage_filesystem=step.fs,
                failure_config=FailureConfig(  # type: ignore[call-arg]
                    max_failures=run.cluster.max_failures, max_preemption_failures=run.cluster.max_preemptions
                ),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
                callbacks=[WriteProgress(step, tracking)],  # type: ignore[list-item]
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        )
        try:
            with show_progress(label, step, settings.steps):
                metrics = dict(trainer.fit().metrics or {})
        except WorkerGroupError as error:
            if (mendable := user_error_of(error, step)) is not None:
                raise mendable from error
            raise
        if "model" not in metrics:
            raise RuntimeError(f"{label}: training ended without a model; its logs are in {step.uri}/train")
        if (loaded := step.read_json(LOADED)) is not None:
            log_event(label, f"initial weights: {LoadReport(**loaded)}; all names are in {step.uri}/{LOADED}")
        parts = [_model_part(step, index, f"{metrics['model']}/{name}") for index, name in enumerate(FILES)]
        output = step.commit(parts, metrics, started)
        # checkpoints are of no use once the model is committed, and not before
        step.fs.delete_dir(f"{step.folder}/train")
        return output

    return run.find_or_run_step(label, "fit", REVISION, fingerprinted, inputs, work)


def user_error_of(error: WorkerGroupError, step: Step) -> ValueError | None:
    """What a person can mend of the workers' errors, if anything: when one rank ends, the others fail for want of it."""
    for failure in error.worker_failures.values():
        told = classify_worker_error(
            getattr(failure, "_base_exc", failure), step.uri
        )  # Ray wraps it, with its traceback as text
        if told.kind in ("mistake", "target"):
            return StoreError(told.detail) if told.kind == "target" else ValueError(told.detail)
    return None


def unused_settings(settings: FitSettings) -> set[str]:
    """The later settings that this fit does not use."""
    return {name for name, unused in LATER.items() if getattr(settings, name) == unused}


def kinds_of(streams: Mapping[str, Source]) -> dict[str, str]:
    """What the targets of each labelled stream are (`labels.tables.Kind`)."""
    return {name: source[1].kind for name, source in streams.items() if not isinstance(source, PoolSource)}


def _check_streams(label: str, settings: FitSettings, streams: Mapping[str, Source]) -> None:
    if settings.batch.keys() != streams.keys():
        raise ValueError(
            f"{label}: batch names the streams {sorted(settings.batch)}, but this fit has {sorted(streams)}: give each its images a step"
        )
    if settings.objective == "supervised":
        refuse_pairing(settings.loss, kinds_of(streams))
    for name, source in streams.items():
        if not isinstance(source, PoolSource) and source[1].draws == 0:
            raise ValueError(
                f"{label}: the stream {name!r} is empty: nothing passed the selection; lower select.threshold or raise select.per_class"
            )


def _model_part(step: Step, unit: int, path: str) -> Part:
    data = storage.get(step.fs, f"{step.folder}/{path}")
    return Part(unit, path, 0, len(data), hashlib.sha256(data).hexdigest())


def train_workers(
    cluster: ClusterSettings, resources: Mapping[str, float], nodes: Sequence[float] | None = None
) -> ScalingConfig:
    """Workers of a fit: one GPU each where there are GPUs, else as many CPUs as each can have on one machine, `nodes` being the CPUs of every
    machine (one has all when not given). With `min_train_workers` the fit is elastic: it restarts at its last checkpoint with as many workers
    as there are machines for. `cluster.gpus_per_worker` asks for GPUs that are still to come.
    """
    least = cluster.min_train_workers or cluster.train_workers
    use_gpu = resources.get("GPU", 0) >= least or bool(cluster.gpus_per_worker)
    share = 1 if use_gpu else cpus_each(nodes or [resources.get("CPU", 1)], cluster.train_workers)
    cpus = float(cluster.train_cpus or share)
    return ScalingConfig(
        num_workers=cluster.train_workers if least == cluster.train_workers else (least, cluster.train_workers),  # type: ignore[arg-type]
        elastic_resize_monitor_interval_s=RESIZE_SECONDS,  # type: ignore[call-arg]
        use_gpu=use_gpu,
        resources_per_worker={"CPU": cpus, **({"GPU": 1.0} if use_gpu else {})},
    )


class WriteProgress(UserCallback):
    """Runs in Train's controller, sees what the workers report, and writes the last of it beside the step, where the driver and
    `status` read it; trackers get all of it."""

    def __init__(self, step: Step, tracking: Tracking) -> None:
        self.step, self.tracking = step, tracking

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:  # noqa: ARG002
        if "loss" in metrics[0]:
            self.step.put_json(PROGRESS, metrics[0])
            self.tracking.log(metrics[0])


@contextmanager
def show_progress(label: str, step: Step, steps: int) -> Iterator[None]:
    """Say how a fit goes on while the `with` block waits for it."""
    over = threading.Event()

    def follow() -> None:
        last = 0
        while not over.wait(FOLLOW_SECONDS):
            seen = step.read_json(PROGRESS)
            if seen is not None and seen["step"] != last:
                last = seen["step"]
                left = (steps - last) * seen["seconds_per_step"] / 60
                workers = f" with {seen['workers']} workers" if seen.get("workers", 1) > 1 else ""
                rates = (
                    f"loss {seen['loss']:.3f}, {seen['images_per_second']:.0f} images/s{workers}, {left:.1f} min left"
                )
                log_event(label, f"{last}/{steps} steps, {rates}")

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def train_worker(config: dict[str, Any]) -> None:
    """One rank: builds everything from the step's settings, resumes from the last checkpoint, trains, and on rank 0 puts the model."""
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
    step: Step = config["step"]
    model, settings = ModelSettings(**config["model"]), FitSettings(**config["settings"])
    init = read_output(step.store, config["init"]) if config["init"] else None
    plan = agreed_plan(step, settings, device, rank)
    objective = create_objective(
        Context(
            device=device,
            rank=rank,
            world=world,
            settings=settings,
            model=model,
            class_names=tuple(config["class_names"]),
            init=fetch_model(init, step.fs) if init else None,
            precision=plan["precision"],
            targets={name: one.kind for name, one in config["streams"].items() if isinstance(one, TrainingSet)},
        )
    )
    if objective.loaded is not None and rank == 0:
        step.put_json(LOADED, asdict(objective.loaded))
    streams = {
        name: open_stream(
            name,
            source,
            batch_size=settings.batch[name],
            seed=settings.seed,
            size=decode_size(model.img_size, settings.noise.get(name)),
            cache_bytes=settings.cache_bytes,
            rank=rank,
            world=world,
        )
        for name, source in config["streams"].items()
    }
    start = 0
    if (latest := ray.train.get_checkpoint()) is not None:
        with latest.as_directory() as folder:
            state = torch.load(Path(folder) / STATE, map_location=device, weights_only=True)
        objective.load_state_dict(state["objective"])
        start = state["step"]
    allocator.keep_freed()

    def on_checkpoint(at: int, state: dict[str, Any]) -> None:
        report: dict[str, Any] = {"step": at}
        if at == settings.steps and rank == 0:
            report["model"] = put_model(step, objective.export(), model, list(objective.class_names))
        with tempfile.TemporaryDirectory() as folder:
            if rank == 0:
                torch.save({"step": at, "objective": state}, Path(folder) / STATE)
            ray.train.report({**last, **report}, checkpoint=Checkpoint.from_directory(folder) if rank == 0 else None)

    last: dict[str, Any] = {}

    def on_log(metrics: dict[str, Any]) -> None:
        last.update(metrics, workers=world)
        ray.train.report(dict(last))

    warned = False

    def notice() -> bool:
        """Whether a machine is about to be taken away, the first time that this is known: what was learnt since the last checkpoint is saved."""
        nonlocal warned
        before, warned = warned, ray.train.get_preemption_info() is not None
        return warned and not before

    train(
        objective, streams, settings, start_step=start, on_checkpoint=on_checkpoint, on_log=on_log, should_save=notice
    )


def agreed_plan(step: Step, settings: FitSettings, device: torch.device, rank: int) -> dict[str, Any]:
    """The step's plan: rank 0 chooses it the first time, every rank obeys it."""
    shared: list[Any] = [None]
    if rank == 0:
        shared = [step.plan(lambda: asdict(choose_precision(settings, device, cpu_gains_from_bf16())))]
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(shared, device=device)
    return shared[0]


def put_model(step: Step, weights: nn.Module, model: ModelSettings, class_names: list[str]) -> str:
    """Put the model folder below the step under a name of its own; returns that name."""
    name = f"model-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        model_folder.save(Path(folder), weights, model, class_names)
        for file in FILES:
            storage.put(step.fs, f"{step.folder}/{name}/{file}", (Path(folder) / file).read_bytes())
    return name
