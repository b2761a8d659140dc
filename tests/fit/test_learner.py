"""The protocol of fine-tuning: a frozen body stays bit for bit, then early layers learn at lower rates."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.fit.learner import Learner
from engine.fit.objective import create_objective
from engine.fit.optimisers import optimiser
from engine.fit.supervised import Supervised
from engine.models.build import build_model
from engine.models.checkpoint import LoadReport, initialise, save
from engine.settings.model import ModelSettings
from tests.fit.objectives import context, labelled, noise
from tests.fit.sets import fit_settings

SMALL = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
BATCH = {"labelled": labelled(noise(8, 16), torch.arange(8) % 4)}


def supervised(**changes: Any) -> Supervised:
    made = create_objective(context("supervised", model=SMALL, **changes))
    assert isinstance(made, Supervised)
    return made


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_a_frozen_body_stays_bit_for_bit(opt: str) -> None:
    """Weights, running statistics and their average; the head learns."""
    objective = supervised(freeze_steps=3, opt=opt, weight_decay=0.1, clip_grad=1.0)
    assert objective.learner.average is not None
    start, average = state(objective.model), state(objective.export())
    for step in range(3):
        objective.step(BATCH, step)
    for model, before in ((objective.model, start), (objective.learner.average.module, average)):
        moved = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
        assert moved == {"head.fc.weight", "head.fc.bias"}
    frozen = state(objective.model)
    objective.step(BATCH, 3)
    moved = {name for name, tensor in state(objective.model).items() if not torch.equal(tensor, frozen[name])}
    assert moved == set(frozen), "weights and statistics of all layers"


def test_a_run_that_resumes_is_as_frozen_as_it_was() -> None:
    whole = supervised(freeze_steps=3)
    for step in range(5):
        whole.step(BATCH, step)
        if step in (1, 3):
            again = supervised(freeze_steps=3)
            again.load_state_dict(copy.deepcopy(whole.state_dict()))
            for later in range(step + 1, 5):
                again.step(BATCH, later)
            saved = state(again.model)
    assert all(torch.equal(tensor, saved[name]) for name, tensor in state(whole.model).items())


def test_what_has_no_classifier_cannot_be_frozen() -> None:
    with pytest.raises(ValueError, match="set freeze_steps=0"):
        create_objective(context("inpainting", model=SMALL, freeze_steps=2))


def test_early_layers_learn_at_lower_rates() -> None:
    model = build_model(SMALL, 4)
    groups = optimiser(model, fit_settings(layer_decay=0.5, weight_decay=0.1)).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    scales = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scales) == len(names)
    ordered = [scales[name] for name in names.values()]
    assert ordered == sorted(ordered)
    assert scales["head.fc.weight"] == 1
    assert scales["body.0.0.weight"] < 0.5
    assert all((group["weight_decay"] > 0) == (group["params"][0].ndim > 1) for group in groups)
    learner = Learner(context("supervised", model=SMALL, layer_decay=0.5, opt="sgd", lr=0.4, sched="constant"), model)
    learner.begin(0)
    learner.update_weights(learner(torch.randn(4, 3, 16, 16)).square().mean(), 0)
    assert {group["lr"] for group in learner.optimiser.param_groups} == {0.4 * scale for scale in scales.values()}


def test_the_report_names_what_was_taken(tmp_path: Path) -> None:
    ten = build_model(SMALL, 10)
    save(tmp_path, ten, SMALL, [str(n) for n in range(10)])
    deeper = build_model(SMALL.model_copy(update={"drop": 0.1}), 4)
    report = initialise(deeper, tmp_path, tuple("abcd"))
    assert report == LoadReport(
        matched=[name for name in deeper.state_dict() if not name.startswith("head.fc")],
        missing=[],
        unexpected=[],
        mismatched=["head.fc.weight", "head.fc.bias"],
    )
    same_classes = initialise(build_model(SMALL, 10), tmp_path, tuple(str(n) for n in range(10)))
    assert same_classes.matched == list(ten.state_dict())
