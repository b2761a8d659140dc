"""Two gloo workers learn what one learns."""

import socket
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from engine.fit.loop import Hooks, train
from engine.fit.objective import Context, create_objective
from engine.gather.training_set import TrainingSet
from engine.models.build import build_model
from engine.settings.run import ModelSettings
from tests.fit.sets import fit_settings, open_stream, write_set

# layer norm, or frozen batch norms: batch statistics are those of a rank's own rows
MODELS = {
    "layer norm": ModelSettings(
        model="convnext_atto", img_size=32, model_args={"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}
    ),
    "frozen batch norm": ModelSettings(model="resnet8_cifar", img_size=8, model_args={"width": 8}),
}


def batch_norms(model: ModelSettings) -> list[str]:
    return [name for name, module in build_model(model, 4).named_modules() if isinstance(module, nn.BatchNorm2d)]


OBJECTIVES: dict[str, dict[str, Any]] = {
    "supervised thawed": {},
    "meta_pseudo_labels difference": {"uda_weight": 1.0, "threshold": 0.0},
    "meta_pseudo_labels soft": {"labels": "soft", "uda_weight": 1.0, "threshold": 0.0},
    "fixmatch": {"cut": "freematch", "momentum": 0.5, "threshold": 0.3},
}


def learn(rank: int, world: int, port: int, training_set: TrainingSet, folder: Path) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", timedelta(minutes=2), world_size=world, rank=rank)
    for name, model in MODELS.items():
        learn_one(name, model, rank, world, training_set, folder)
    together(rank, world, training_set, folder)
    if world > 1:
        dist.destroy_process_group()


def learn_one(name: str, model: ModelSettings, rank: int, world: int, training_set: TrainingSet, folder: Path) -> None:
    settings = fit_settings(steps=3, checkpoint_every=1, log_every=1, model_ema=False, freeze=batch_norms(model))
    objective = create_objective(Context(torch.device("cpu"), settings, model, tuple("abcd"), rank, world))
    stream = open_stream("labelled", training_set, batch_size=8, seed=0, size=8, cache_bytes=0, rank=rank, world=world)
    logs: list[dict[str, Any]] = []

    def save(step: int, state: dict[str, Any]) -> None:
        gradients = {name: p.grad for name, p in objective.export().named_parameters() if p.grad is not None}
        saved = {"gradients": gradients, "weights": state["model"], "loss": logs[-1]["loss"]}
        torch.save(saved, folder / f"{name}-{world}-{rank}-{step}.pt")

    train(objective, {"labelled": stream}, settings, Hooks(save, logs.append))


def together(rank: int, world: int, training_set: TrainingSet, folder: Path) -> None:
    """Some steps of objectives whose feedback and cut are of all workers."""
    for name, arguments in OBJECTIVES.items():
        sizes = {"labelled": 8, "pool": 8}
        settings = fit_settings(
            objective=name.split()[0],
            objective_args=arguments,
            batch=sizes,
            model_ema=False,
            momentum=0.0,
            lr=0.02,
            freeze_steps=name.count("thawed"),
        )
        objective = create_objective(
            Context(torch.device("cpu"), settings, MODELS["layer norm"], tuple("abcd"), rank, world)
        )
        streams = {
            stream: open_stream(
                stream, training_set, batch_size=8, seed=0, size=8, cache_bytes=0, rank=rank, world=world
            )
            for stream in sizes
        }
        told = [objective.step({stream: one.batch(step) for stream, one in streams.items()}, step) for step in range(2)]
        values = {key: [torch.as_tensor(step[key]) for step in told] for key in ("feedback",) if key in told[0]}
        state = {key: value for key, value in objective.state_dict().items() if "optimiser" not in key}
        torch.save({**values, **state}, folder / f"{name}-{world}-{rank}.pt")


def test_two_workers_learn_what_one_learns(tmp_path: Path) -> None:
    training_set = write_set(tmp_path / "set", (12, 12))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = mp.get_context("spawn").Process(target=learn, args=(1, 2, port, training_set, tmp_path), daemon=True)
    other.start()
    learn(0, 1, 0, training_set, tmp_path)  # while the other one is still importing
    learn(0, 2, port, training_set, tmp_path)
    other.join(60)
    assert other.exitcode == 0
    for name, step in product(MODELS, (1, 2, 3)):
        alone, *ranks = (torch.load(tmp_path / f"{name}-{who}-{step}.pt") for who in ("1-0", "2-0", "2-1"))
        assert alone["gradients"]
        for rank in ranks:
            torch.testing.assert_close(rank, alone, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(rank, ranks[0], rtol=0, atol=0)
    for name in OBJECTIVES:
        alone, *ranks = (torch.load(tmp_path / f"{name}-{one}.pt") for one in ("1-0", "2-0", "2-1"))
        if "feedback" in alone:
            whole, *halves = (torch.stack(one.pop("feedback")) for one in (alone, *ranks))
            torch.testing.assert_close((halves[0] + halves[1]) / 2, whole, rtol=1e-4, atol=1e-6)
            assert "soft" in name or torch.equal(*halves), "the losses are means over workers before h is formed"
        for rank in ranks:
            torch.testing.assert_close(rank, alone, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(rank, ranks[0], rtol=0, atol=0)
