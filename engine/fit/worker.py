"""One rank of a fit: builds everything from the step's settings, resumes from the last checkpoint, trains, and on rank 0 writes the model."""

import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

from engine.fit.checkpoints import Reporter
from engine.fit.loop import DivergedError, Hooks, train
from engine.fit.objective import Context, Objective, create_objective
from engine.fit.precision import choose_precision, cpu_gains_from_bf16
from engine.fit.source import Source
from engine.fit.streams import Stream, StreamSpec
from engine.ground import allocator, storage
from engine.ground.progress import log_event
from engine.ground.steps import Step, read_output
from engine.models import checkpoint as model_folder
from engine.models.build import train_frame
from engine.models.fetch import FILES, fetch_model
from engine.settings.block import SettingsError
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings

LOADED = "loaded.json"
ENDED = "ended.json"
"""Why a fit ended on Ray Train's workers when no retry can help."""


@dataclass(frozen=True)
class FitJob:
    """All that a training worker needs; small enough to be sent to each. `init`: the fitted step, of the same store, whose weights it starts from."""

    step: Step
    model: ModelSettings
    settings: FitSettings
    streams: Mapping[str, Source]
    class_names: tuple[str, ...]
    init: str | None
    reporter: Reporter
    driver_threads: int | None = None
    """Torch's threads when the worker is the driver itself; None: a process of its own, with the CPUs that Ray assigned to it."""


@dataclass(frozen=True)
class Rank:
    """This worker among the workers of the fit."""

    rank: int
    world: int
    device: torch.device


def train_worker(config: dict[str, Any]) -> None:
    """Train as one rank of the job `config["job"]`.

    A loss that is not finite and settings that cannot be used are the same on every rank and in every attempt. Ray Train retries whatever a worker
    raises, so its workers end in order and leave the reason in the step's folder.
    """
    job: FitJob = config["job"]
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    try:
        train_rank(job, rank)
    except (DivergedError, SettingsError) as error:
        if job.driver_threads is not None:
            raise
        if rank.rank == 0:
            job.step.put_json(ENDED, {"reason": str(error)})


def train_rank(job: FitJob, rank: Rank) -> None:
    """Train as `rank` of the job, from the last checkpoint where there is one."""
    if rank.device.type == "cpu":
        assigned = job.driver_threads or int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
        torch.set_num_threads(max(1, assigned))
    objective = make_objective(job, rank)
    streams = open_streams(job, rank, objective)
    check_forward(objective.export(), job.model, rank.device)
    start, saved = 0, job.reporter.latest(rank.device)
    if saved is not None:
        objective.load_state_dict(saved["objective"])
        start = saved["step"]
    if job.driver_threads is None:
        allocator.keep_freed()
    run_loop(job, rank, objective, streams, start)


def make_objective(job: FitJob, rank: Rank) -> Objective:
    """The objective of the job, its initial weights loaded; rank 0 writes down which."""
    init = read_output(job.step.store, job.init) if job.init else None
    plan = agreed_plan(job.step, job.settings, rank)
    context = Context(
        device=rank.device,
        rank=rank.rank,
        world=rank.world,
        settings=job.settings,
        model=job.model,
        class_names=job.class_names,
        init=fetch_model(init, job.step.fs) if init else None,
        precision=plan["precision"],
        targets={name: source.target_kind for name, source in job.streams.items() if source.target_kind is not None},
    )
    objective = create_objective(context)
    if objective.loaded is not None and rank.rank == 0:
        job.step.put_json(LOADED, asdict(objective.loaded))
        log_event(job.step.name, f"initial weights: {objective.loaded}; all names are in {job.step.uri}/{LOADED}")
    return objective


def check_forward(model: nn.Module, settings: ModelSettings, device: torch.device) -> None:
    """Run what will be exported once, on two black images, before it is trained. Raises SettingsError when it cannot: some networks are built for any
    image size and work for a few.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(2, 3, settings.img_size, settings.img_size, device=device))
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        raise SettingsError(
            f"model {settings.model} cannot be run on images of img_size={settings.img_size}: {error}. Choose another img_size (the usual one is in"
            " timm's configuration of the architecture), or another model."
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode


def open_streams(job: FitJob, rank: Rank, objective: Objective) -> dict[str, Stream]:
    """This rank's part of every stream of the job, cropped as the objective wants it."""
    settings, frame = job.settings, train_frame(job.model)
    return {
        name: source.open(
            StreamSpec(
                name,
                settings.batch[name],
                settings.seed,
                frame,
                settings.cache_bytes,
                rank.rank,
                rank.world,
                objective.crops(name),
            )
        )
        for name, source in job.streams.items()
    }


def run_loop(job: FitJob, rank: Rank, objective: Objective, streams: Mapping[str, Stream], start: int) -> None:
    """The training loop from step `start`, reporting through the job's reporter."""
    last: dict[str, Any] = {}
    announced = False

    def on_checkpoint(at: int, state: dict[str, Any]) -> None:
        metrics: dict[str, Any] = {**last, "step": at}
        if at == job.settings.steps and rank.rank == 0:
            metrics["model"] = put_model(job.step, objective.export(), job.model, list(objective.class_names))
        job.reporter.save(metrics, {"step": at, "objective": state})

    def on_log(metrics: dict[str, Any]) -> None:
        last.update(metrics, workers=rank.world)
        job.reporter.report(dict(last))

    def should_save() -> bool:
        """True once, when a preemption is first announced: what was learnt since the last checkpoint is saved."""
        nonlocal announced
        before, announced = announced, job.reporter.is_preemption_announced()
        return announced and not before

    train(objective, streams, job.settings, Hooks(on_checkpoint, on_log, should_save), start)


def agreed_plan(step: Step, settings: FitSettings, rank: Rank) -> dict[str, Any]:
    """The step's plan: rank 0 chooses it the first time, every rank obeys it."""
    shared: list[Any] = [None]
    if rank.rank == 0:
        shared = [step.plan(lambda: asdict(choose_precision(settings, rank.device, cpu_gains_from_bf16())))]
    if rank.world > 1:
        torch.distributed.broadcast_object_list(shared, device=rank.device)
    return shared[0]


def put_model(step: Step, weights: nn.Module, model: ModelSettings, class_names: list[str]) -> str:
    """Put the model folder below the step under a name of its own; returns that name."""
    name = f"model-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as folder:
        model_folder.save(Path(folder), weights, model, class_names)
        for file in FILES:
            storage.put(step.fs, f"{step.folder}/{name}/{file}", (Path(folder) / file).read_bytes())
    return name
