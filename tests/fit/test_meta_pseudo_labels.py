"""The objective of Meta Pseudo Labels: its step, its views, its arms and its checkpoints. The arithmetic of the feedback is in test_feedback."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import make_moons
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.learner import own_statistics
from engine.fit.loop import Hooks, train
from engine.fit.meta_pseudo_labels import MetaArguments, MetaPseudoLabels
from engine.fit.objective import create_objective
from engine.fit.pool_stream import PoolSource
from engine.gather.training_set import TrainingSet
from engine.settings.block import SettingsError
from engine.settings.fit import NoiseSettings
from tests.fit.objectives import context, labelled, noise, unlabelled
from tests.fit.sets import open_stream, write_set
from tests.fit.test_loop import same
from tests.images import making

STILL = NoiseSettings(hflip=0).model_dump()


def made(net: Mapping[str, Any] | None = None, **changes: Any) -> MetaPseudoLabels:
    arguments = {"uda_weight": 0.0, "baseline": 0.0, "weak": STILL, **changes.pop("objective_args", {})}
    settings = {
        "batch": {"labelled": 8, "pool": 12},
        "noise": {"labelled": STILL, "pool": STILL},
        "opt": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "sched": "constant",
        "model_ema": False,
        "lr": 0.1,
        **changes,
    }
    objective = create_objective(
        context("meta_pseudo_labels", objective_args=arguments, net={"hidden": 6, **(net or {})}, **settings)
    )
    assert isinstance(objective, MetaPseudoLabels)
    return objective


def batches() -> dict[str, Batch]:
    return {"labelled": labelled(noise(8), torch.arange(8) % 4), "pool": unlabelled(noise(12, seed=1), 1)}


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [{"labels": "soft"}, {"feedback": "product"}, {"feedback": "difference"}],
    ids=lambda a: next(iter(a.values())),
)
def test_the_feedback_reaches_the_teacher(arguments: dict[str, str], norm: bool) -> None:
    """Fails when the gradient of the feedback is zero, as it is in the program that was published."""
    full, none = (made({"norm": norm}, objective_args={**arguments, "arm": arm}) for arm in ("full", "no_feedback"))
    start = weights(full.teacher.model)
    metrics = [each.step(batches(), 0) for each in (full, none)]
    assert float(metrics[0]["feedback"]) == float(metrics[1]["feedback"]) != 0
    moved, labels_alone = (weights(each.teacher.model) - start for each in (full, none))
    assert float((moved - labels_alone).norm()) > 1e-5
    assert torch.equal(weights(full.student.model), weights(none.student.model))  # the same first labels


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_both_forms_of_the_feedback_agree_in_sign_and_size(momentum: float) -> None:
    """Old minus new, not new minus old; the product with the gradients as they were, whatever the optimiser writes into them."""
    difference, product_ = (
        float(
            made({"norm": True}, objective_args={"feedback": how}, lr=1e-3, momentum=momentum).step(batches(), 0)[
                "feedback"
            ]
        )
        for how in ("difference", "product")
    )
    scale = 1 + momentum  # the first step of Nesterov's momentum is so much longer
    assert difference == pytest.approx(scale * product_, rel=0.05)
    assert abs(difference) > 1e-6


def test_a_frozen_part_of_the_student_has_no_part_in_the_feedback() -> None:
    for arguments in ({"labels": "soft"}, {"feedback": "product"}, {"feedback": "difference"}):
        objective = made(objective_args=arguments, freeze=["body"])
        body = objective.student.model.get_submodule("body")
        before = [weight.clone() for weight in body.parameters()]
        assert float(objective.step(batches(), 0)["feedback"]) != 0
        assert all(map(torch.equal, before, body.parameters()))


def test_udas_term_is_sharpened_cut_and_grows() -> None:
    batch, arguments = batches(), {"arm": "uda_only", "uda_weight": 3.0, "uda_steps": 4, "temperature": 0.5}
    probe = made(objective_args=arguments)
    known, pool = (probe.views(name, batch[name]) for name in ("labelled", "pool"))
    with torch.no_grad():
        true = float(F.cross_entropy(probe.teacher.model(known), batch["labelled"].classes[:, 0]))
        answers = probe.teacher.model(pool)  # both views are the image itself
    target = (answers / 0.5).softmax(1)
    cut = float(target.amax(1).median())
    kept = target.amax(1) >= cut
    assert 0 < int(kept.sum()) < 12
    uda = float((-(target * answers.log_softmax(1)).sum(1) * kept).sum() / 12)
    metrics = made(objective_args={**arguments, "threshold": cut}).step(batch, 2)
    assert float(metrics["loss/uda"]) == pytest.approx(uda, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(true + 3.0 * 2 / 4 * uda, rel=1e-5)


def test_the_objectives_step_is_the_derivative() -> None:
    """The teacher's own step against finite differences of the student's labelled loss, through the whole objective."""
    objective = made(objective_args={"labels": "soft", "feedback_reduction": "sum"}, lr=0.5)
    plain = made(objective_args={"labels": "soft", "arm": "no_feedback"}, lr=0.5)
    batch = batches()
    start, student = weights(objective.teacher.model), weights(objective.student.model)
    objective.step(batch, 0)
    plain.step(batch, 0)
    found = (weights(plain.teacher.model) - weights(objective.teacher.model)) / 0.5
    probe = made(objective_args={"labels": "soft", "arm": "no_feedback"}, lr=0.5)
    direction = found / found.norm()
    losses = []
    for sign in (1, -1):
        nn.utils.vector_to_parameters(start + sign * 0.05 * direction, probe.teacher.model.parameters())
        nn.utils.vector_to_parameters(student.clone(), probe.student.model.parameters())
        probe.step(batch, 0)
        images = probe.views("labelled", batch["labelled"])
        losses.append(float(probe.student_loss(images, batch["labelled"])))
    slope = (losses[0] - losses[1]) / 0.1
    assert slope == pytest.approx(float(found.norm()), rel=0.02)


def test_batch_norm_has_no_part_in_the_feedback() -> None:
    """A student that learns nothing has made no progress, though its running statistics moved; measuring leaves no trace."""
    objective = made({"norm": True}, objective_args={"student_lr": 1e-30})
    model, batch = objective.student.model, batches()
    running = {name: tensor.clone() for name, tensor in model.named_buffers()}
    images = objective.views("labelled", batch["labelled"])
    objective.student_loss(images, batch["labelled"])
    objective.student_gradient(images, batch["labelled"])
    assert all(torch.equal(tensor, running[name]) for name, tensor in model.named_buffers())
    metrics = objective.step(batch, 0)
    assert abs(float(metrics["feedback"])) < 1e-20
    assert not all(torch.equal(tensor, running[name]) for name, tensor in model.named_buffers())


def test_own_statistics_put_everything_back() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    model[2].eval()
    x = torch.randn(16, 3) * 5 + 2
    with own_statistics(model):
        inside = model(x)
        assert torch.equal(inside, model(x)), "dropout was on"
    assert inside.mean().abs() < 1e-5
    assert [module.training for module in model] == [True, True, False]
    assert model[1].track_running_stats
    assert model[1].num_batches_tracked == 0


def test_arms_are_what_they_say() -> None:
    batch = batches()
    alone = made(objective_args={"arm": "uda_only", "uda_weight": 8.0})
    follower = made(objective_args={"arm": "no_feedback", "uda_weight": 8.0})
    for step in range(3):
        alone.step(batch, step)
        follower.step(batch, step)
    assert torch.equal(weights(alone.teacher.model), weights(follower.teacher.model))
    assert alone.export() is alone.teacher.model
    assert follower.export() is follower.student.model
    assert "student" not in alone.parts
    waiting = made(objective_args={"student_wait": 2})
    start = weights(waiting.student.model)
    for step in range(2):
        assert float(waiting.step(batch, step)["feedback"]) == 0
    assert torch.equal(weights(waiting.student.model), start)
    waiting.step(batch, 2)
    assert not torch.equal(weights(waiting.student.model), start)


def test_the_mean_of_the_feedback_is_the_default_and_a_batch_th_of_the_sum() -> None:
    """The published programs divide by the pool's batch, 896 images: the whole derivative drowns the teacher's own labels."""
    moved = []
    for arguments in ({}, {"feedback_reduction": "sum", "feedback_weight": 1 / 12}):
        objective = made(objective_args=arguments)
        objective.step(batches(), 0)
        moved.append(weights(objective.teacher.model))
    torch.testing.assert_close(*moved)
    assert MetaArguments().feedback_reduction == "mean"


def test_the_students_schedule_and_average_begin_with_it() -> None:
    """Wait 3 of 13 steps: then its own warm-up of 2, then a cosine over its other 8; the first average is its weights, not a random start."""
    objective = made(
        objective_args={"student_wait": 3, "student_warmup_steps": 2, "student_lr": 0.4},
        steps=13,
        sched="cosine",
        model_ema=True,
        model_ema_decay=0.9,
    )
    rates = []
    for step in range(13):
        objective.step(batches(), step)
        rates.append(objective.student.optimiser.param_groups[0]["lr"])
        if step == 3:
            torch.testing.assert_close(weights(objective.export()), weights(objective.student.model))
    assert rates[3:6] == pytest.approx([0.2, 0.4, 0.4])
    assert rates[-1] == pytest.approx(0.4 * 0.5 * (1 + np.cos(np.pi * 7 / 8)))
    with pytest.raises(SettingsError, match="the student would learn nothing"):
        made(objective_args={"student_wait": 12, "student_warmup_steps": 1}, steps=13)


def test_the_strong_view_can_be_made_from_the_weak_one() -> None:
    """A strong view without noise is then the weak view itself, translation and all; made from the image it is the image."""
    shifting = {"hflip": 1.0, "pad": 3, "pad_mode": "grey"}
    for source, same_views in (("weak", True), ("image", False)):
        objective = made(objective_args={"weak": shifting, "strong_from": source})
        pool = batches()["pool"]
        weak = objective.views("pool", pool, 0)
        strong = objective.views.chained("pool", pool, 0, 1) if source == "weak" else objective.views("pool", pool, 1)
        assert torch.equal(weak, strong) is same_views
    with pytest.raises(SettingsError, match="weak view's crop"):
        made(objective_args={"strong_from": "weak"}, noise={"pool": {"scale": [0.5, 1]}})


def test_what_the_student_learns_can_be_smoothed() -> None:
    plain, smoothed = (made(objective_args={"student_smoothing": share}) for share in (0.0, 0.3))
    losses = [float(each.step(batches(), 0)["loss/student"]) for each in (plain, smoothed)]
    assert losses[0] != losses[1]


def test_checkpoints_hold_both_networks_and_the_baseline() -> None:
    one, other = made(objective_args={"baseline": 0.9}), made(objective_args={"baseline": 0.9}, seed=7)
    one.step(batches(), 0)
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.step(batches(), 1)
    assert torch.equal(weights(one.teacher.model), weights(other.teacher.model))
    assert torch.equal(weights(one.student.model), weights(other.student.model))
    assert float(one.baseline.mean) == float(other.baseline.mean) != 0


@pytest.mark.slow
def test_two_moons_with_six_labels() -> None:
    """A smoke test: with the feedback a student of three labels a moon comes out better than with h = 0."""
    points, moon = make_moons(1000, noise=0.1, random_state=0)
    images = np.full((1000, 3, 1, 1), 128, np.uint8)
    images[:, :2, 0, 0] = ((points - (-1.5, -1.0)) / (4.0, 2.5) * 255).clip(0, 255)
    pictures = torch.from_numpy(images)
    accuracy = {}
    for arm in ("no_feedback", "full"):
        rng = np.random.default_rng(0)
        own = np.concatenate([rng.permutation(np.flatnonzero(moon == one))[:3] for one in (0, 1)])
        known = labelled(pictures[own], torch.tensor(moon[own]))
        objective = made(
            {"hidden": 32, "side": 1, "norm": True},
            side=1,
            names=("upper", "lower"),
            batch={"labelled": 6, "pool": 64},
            objective_args={"arm": arm, "labels": "soft", "feedback_weight": 30.0, "feedback_reduction": "sum"},
            momentum=0.9,
        )
        for step in range(600):
            batch = {"labelled": known, "pool": unlabelled(pictures[rng.integers(0, 1000, 64)], step)}
            objective.step(batch, step)
        model = objective.export()
        with torch.no_grad(), own_statistics(model):
            answers = model(objective.views.view("labelled").normalise(pictures)).argmax(1)
        accuracy[arm] = float((answers.numpy() == moon).mean())
    assert accuracy["full"] > accuracy["no_feedback"] + 0.02
    assert accuracy["full"] > 0.87


def test_resumed_equals_undisturbed_on_a_raw_stream(tmp_path: Path) -> None:
    """The pool as it lies, two networks, the baseline: bit for bit, with the same loss curve."""
    making.folder(tmp_path / "pool", [f"{n}.png" for n in range(30)])
    pool = PoolSource(making.manifest(tmp_path / "pool", tmp_path / "list"))
    sets: dict[str, TrainingSet | PoolSource] = {"labelled": write_set(tmp_path / "labelled"), "pool": pool}

    def objective() -> MetaPseudoLabels:
        return made(
            {"norm": True}, steps=8, checkpoint_every=4, log_every=1, objective_args={"uda_weight": 1.0}, momentum=0.9
        )

    def run(learner: MetaPseudoLabels, start: int) -> tuple[list[dict[str, float]], dict[int, dict[str, object]]]:
        settings = learner.context.settings
        streams = {
            name: open_stream(name, one, batch_size=settings.batch[name], seed=0, size=4, cache_bytes=0)
            for name, one in sets.items()
        }
        logs: list[dict[str, float]] = []
        saved: dict[int, dict[str, object]] = {}
        train(
            learner,
            streams,
            settings,
            Hooks(lambda step, state: saved.update({step: copy.deepcopy(state)}), logs.append),
            start_step=start,
        )
        return [{key: log[key] for key in ("loss", "loss/student", "feedback")} for log in logs], saved

    whole, checkpoints = run(objective(), 0)
    second = objective()
    second.load_state_dict(checkpoints[4])  # type: ignore[arg-type]
    curve, again = run(second, 4)
    assert curve == whole[4:]
    same(again[8], checkpoints[8])
