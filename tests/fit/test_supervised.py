"""The supervised objective: its loss, what weight decay spares, and how it refuses what it cannot do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.fit.batch import Batch
from engine.fit.losses import LOSSES, REFUSED_TRUNCATED, dense, refuse_inexact, refuse_pairing, tempered_ce
from engine.fit.objective import Context, create_objective
from engine.fit.optimisers import optimiser, set_rate
from engine.fit.supervised import Supervised
from engine.models import checkpoint
from engine.settings.block import SettingsError
from engine.settings.fit import FitSettings, NoiseSettings
from tests.fit.sets import MODEL, NUM_CLASSES, fit_settings, open_stream, write_set

NAMES = tuple("abcd")
PLAIN = NoiseSettings(hflip=0)


def supervised(settings: object = None, **changes: object) -> Supervised:
    fit = fit_settings(**changes) if settings is None else settings
    model = MODEL.model_copy(update={"drop": 0.0})
    made = create_objective(Context(torch.device("cpu"), fit, model, NAMES))  # type: ignore[arg-type]
    assert isinstance(made, Supervised)
    return made


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Batch]:
    folder = tmp_path_factory.mktemp("sets")
    sets = {"labelled": write_set(folder / "a", (12,)), "pseudo": write_set(folder / "b", (30,), soft=True, seed=1)}
    sizes = {"labelled": 8, "pseudo": 24}
    return {
        name: open_stream(name, each, batch_size=sizes[name], seed=0, size=8, cache_bytes=2**20).batch(0)
        for name, each in sets.items()
    }


def test_default_weights_are_the_mean_over_the_concatenated_batch(batches: dict[str, Batch]) -> None:
    both = {"labelled": 8, "pseudo": 24}
    mean = supervised(batch=both).step(batches, 0)
    expected = (8 * float(mean["loss/labelled"]) + 24 * float(mean["loss/pseudo"])) / 32
    assert float(mean["loss"]) == pytest.approx(expected, rel=1e-6)
    published = supervised(batch=both, stream_weight={"labelled": 1, "pseudo": 3}).step(batches, 0)
    assert float(published["loss"]) == pytest.approx((1 + 3) * float(mean["loss"]), rel=1e-6)


def test_soft_labels_from_an_identical_net_give_no_gradient(batches: dict[str, Batch]) -> None:
    objective = supervised(batch={"pseudo": 24}, noise={"pseudo": PLAIN.model_dump()})
    batch = batches["pseudo"]
    objective.model.train()  # the same mode for both
    view = objective.views("pseudo", batch)
    logits = objective.model(view)
    q = logits.detach().softmax(1)
    own = Batch(batch.images, torch.arange(NUM_CLASSES).expand(len(q), -1), q, batch.seeds)
    objective.stream_loss(logits, own).backward()
    slopes = [p.grad.abs().max() for p in objective.model.parameters() if p.grad is not None]
    assert slopes
    assert float(torch.stack(slopes).max()) < 1e-6
    objective.stream_loss(objective.model(view), batch).backward()
    assert max(float(p.grad.abs().max()) for p in objective.model.parameters() if p.grad is not None) > 1e-3


def test_smoothing_spares_soft_targets(batches: dict[str, Batch]) -> None:
    plain, smoothed = (supervised(batch={"labelled": 8, "pseudo": 24}, smoothing=s).step(batches, 0) for s in (0, 0.1))
    assert smoothed["loss/pseudo"] == plain["loss/pseudo"]
    assert smoothed["loss/labelled"] != plain["loss/labelled"]


@pytest.mark.parametrize("loss", ["kl", "tempered_ce", "mse", "bce", "focal", "quality_focal"])
def test_every_loss_trains(batches: dict[str, Batch], loss: str) -> None:
    stream = "labelled" if loss in REFUSED_TRUNCATED else "pseudo"
    metrics = supervised(batch={stream: len(batches[stream])}, loss=loss, clip_grad=1.0).step(batches, 0)
    assert torch.as_tensor(metrics["loss"]).isfinite()
    assert float(metrics["grad_norm"]) > 0


def test_weight_decay_spares_norms_and_biases() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    for name in ("sgd", "adamw"):
        groups = optimiser(model, fit_settings(opt=name, weight_decay=0.01)).param_groups
        decayed = [p for group in groups if group["weight_decay"] for p in group["params"]]
        assert [p.ndim for p in decayed] == [4]
        assert sum(len(group["params"]) for group in groups) == 4


@pytest.mark.parametrize(
    ("opt", "arguments"),
    [
        ("rmsproptf", {"alpha": 0.9, "eps": 0.001}),
        ("lamb", {}),
        ("lars", {}),
        ("lookahead_radam", {"betas": [0.95, 0.99]}),
    ],
)
def test_any_optimiser_of_timm_trains_and_resumes(
    batches: dict[str, Batch], opt: str, arguments: dict[str, Any]
) -> None:
    """Norms and biases are spared of weight decay, and a checkpoint in the middle changes nothing."""
    changes: dict[str, Any] = {"opt": opt, "opt_args": arguments, "lr": 0.01, "batch": {"labelled": 8}}
    whole, first, second = (supervised(**changes) for _ in range(3))
    for step in range(4):
        whole.step(batches, step)
    for step in range(2):
        first.step(batches, step)
    second.load_state_dict(first.state_dict())
    for step in range(2, 4):
        second.step(batches, step)
    for name, tensor in whole.export().state_dict().items():
        torch.testing.assert_close(second.export().state_dict()[name], tensor, msg=name)
    assert {group["weight_decay"] for group in whole.learner.optimiser.param_groups} == {0.0, 5e-4}


def test_rmsprop_of_tensorflow_starts_at_one() -> None:
    """Its mean square begins at 1, not at 0: the first step is lr g / sqrt(0.9 + 0.1 g² + eps)."""
    layer = nn.Linear(1, 1, bias=False)
    start = float(layer.weight.detach())
    settings = fit_settings(
        opt="rmsproptf", opt_args={"alpha": 0.9, "eps": 0.001}, lr=0.1, weight_decay=0, momentum=0.0
    )
    made = optimiser(layer, settings)
    (layer(torch.ones(1, 1)) * 3).sum().backward()
    made.step()
    assert start - float(layer.weight.detach()) == pytest.approx(0.1 * 3 / (0.9 + 0.1 * 9 + 0.001) ** 0.5, rel=1e-5)


def test_optimisers_are_looked_up_and_have_no_default_rate() -> None:
    with pytest.raises(ValueError, match="unknown to timm"):
        fit_settings(opt="rmsprob", lr=0.1)
    with pytest.raises(ValueError, match="has no usual learning rate"):
        FitSettings(steps=1, batch={"labelled": 1}, opt="lamb")
    with pytest.raises(SettingsError, match="cannot be made with opt_args"):
        optimiser(nn.Linear(1, 1), fit_settings(opt="lamb", lr=0.1, opt_args={"nonsense": 1.0}))


def test_groups_may_scale_the_rate() -> None:
    made = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr_scale": 0.1}], lr=1)
    assert set_rate(made, 0.5) == 0.5
    assert made.param_groups[0]["lr"] == pytest.approx(0.05)


def test_export_is_the_average_and_init_is_taken(tmp_path: Path, batches: dict[str, Batch]) -> None:
    averaged, plain = supervised(), supervised(model_ema=False)
    for objective in (averaged, plain):
        for step in range(3):
            objective.step(batches, step)
    assert plain.export() is plain.model
    assert averaged.export() is not averaged.model
    pairs = zip(averaged.export().parameters(), averaged.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    checkpoint.save(tmp_path, averaged.export(), MODEL, list(NAMES))
    context = Context(torch.device("cpu"), fit_settings(seed=9), MODEL, NAMES, init=tmp_path)
    started = create_objective(context).export().state_dict()
    for name, tensor in averaged.export().state_dict().items():
        assert torch.equal(started[name], tensor), name


def test_what_cannot_be_trained_is_refused() -> None:
    for changes, message in (
        ({"loss": "mse_logits"}, "holds distribution: set fit.loss to soft_ce"),
        ({"objective_args": {"los_args": {}}}, "did you mean 'loss_args'"),
        ({"objective": "no.such:Thing"}, "cannot be imported"),
        ({"objective": "engine.fit.losses:kl"}, "not a subclass"),
    ):
        with pytest.raises(SettingsError, match=message):
            supervised(**changes)


FORMS = {
    "hard": ([[2]], [[1.0]]),
    "complete": ([[0, 1, 2, 3]], [[0.4, 0.3, 0.2, 0.1]]),
    "sparse": ([[0, 1]], [[0.75, 0.25]]),
    "truncated": ([[0, 1]], [[0.6, 0.2]]),
}
EXACT = {
    "soft_ce": {"hard", "complete", "sparse", "truncated"},
    "kl": {"hard", "complete", "sparse", "truncated"},
    "mse": {"hard", "complete", "sparse", "truncated"},
    "mse_outputs": {"hard", "complete", "sparse", "truncated"},
    "bce": {"hard", "complete", "sparse", "truncated"},
    "quality_focal": {"hard", "complete", "sparse", "truncated"},
    "tempered_ce": {"hard", "complete", "sparse"},
    "focal": {"hard"},
}
"""Forms of targets with which each loss is exact, given that what is not listed is spread evenly; the others are refused."""
KIND = {
    "mse_logits": {"logits"},
    "mse_outputs": {"distribution", "logits"},
    "bce": {"labels", "distribution"},
    "quality_focal": {"labels", "distribution"},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("loss", EXACT)
def test_every_loss_is_exact_on_a_form_of_targets_or_refuses_it(loss: str, form: str) -> None:
    classes, weights = (torch.tensor(values) for values in FORMS[form])
    if form in EXACT[loss]:
        refuse_inexact(loss, "x", classes, weights, 4)
    else:
        with pytest.raises(SettingsError, match=f"x: loss {loss} "):
            refuse_inexact(loss, "x", classes, weights, 4)


@pytest.mark.parametrize("kind", ["distribution", "logits", "labels"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_takes_its_kinds_of_targets_alone(loss: str, kind: str) -> None:
    if kind in KIND.get(loss, {"distribution"}):
        refuse_pairing(loss, {"pseudo": kind})
    else:
        with pytest.raises(SettingsError, match="wants targets that are"):
            refuse_pairing(loss, {"pseudo": kind})


def test_tempered_ce_on_eight_of_a_thousand_classes_is_far_off() -> None:
    """The reason: of a teacher's 1,000 probabilities 8 are stored; at T = 2 the even share of the others takes most of the target."""
    logits = 3 * torch.randn(1, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = logits.softmax(1)
    best, classes = q.topk(8)
    with pytest.raises(SettingsError, match=r"predict\.top_p=C"):
        refuse_inexact("tempered_ce", "stream 'pseudo'", classes, best, 1000)
    stored = dense(classes, best, 1000)
    off = float(tempered_ce(logits, stored) - tempered_ce(logits, q)) / 4
    assert abs(off) > 0.1, "nats of cross-entropy at the teacher's own answer, T squared taken out"
