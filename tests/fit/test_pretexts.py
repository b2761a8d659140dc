"""Pretexts against what is known of them: exact turns, ln 4, 25 % where there is nothing to learn; holes, errors, colours; two views."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from engine.fit.objective import create_objective
from engine.fit.patches import ORDERS, Patches, placed
from engine.fit.restoration import Inpainting, Restoration, squared_error
from engine.fit.rotation import Rotation, four_ways
from engine.fit.two_views import TwoViews, covariance_loss, invariance_loss, variance_loss
from engine.images.counter_rng import view_seeds
from engine.images.holes import holes
from engine.models.checkpoint import initialise, load, save
from engine.models.unet import UNet
from engine.settings.block import SettingsError
from engine.settings.fit import NoiseSettings
from engine.settings.model import ModelSettings
from tests.fit.objectives import context, noise, seeds, unlabelled

SMALL = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})


def rotation(side: int = 4, **changes: Any) -> Rotation:
    changes = {"lr": 0.05, "batch": {"pool": 32}, "model_ema": False, "weight_decay": 0.0, **changes}
    made = create_objective(context("rotation", side, sched="constant", **changes))
    assert isinstance(made, Rotation)
    return made


def test_four_quarter_turns_are_none_and_each_angle_has_its_label() -> None:
    images = noise(5)
    turned, angle = four_ways(images)
    assert torch.equal(angle.bincount(), torch.full((4,), 5)), "the histogram of labels is uniform in every batch"
    parts = turned.chunk(4)
    for quarter in range(4):
        assert torch.equal(torch.rot90(parts[quarter], 4 - quarter, (2, 3)), images)
    # why mirrors come before: after, they would exchange the labels 90 and 270
    assert torch.equal(parts[1].flip(3), torch.rot90(images.flip(3), 3, (2, 3)))


def test_mirrored_images_are_turned_not_turned_images_mirrored() -> None:
    objective = rotation(noise={"pool": NoiseSettings(hflip=1.0).model_dump()})
    images = noise(2)
    mirrored = objective.views.view("pool")(images, seeds(2))[0]
    torch.testing.assert_close(mirrored, objective.views.view("pool").normalise(images.flip(3)))


def test_uniform_answers_cost_ln_4() -> None:
    objective = rotation()
    with torch.no_grad():
        for weight in objective.learner.model.parameters():
            weight.zero_()
    assert float(objective.step({"pool": unlabelled(noise(32))}, 0)["loss"]) == pytest.approx(math.log(4), rel=1e-6)


def test_nothing_is_learnt_where_every_turn_is_as_likely() -> None:
    objective, right = rotation(lr=0.002), []
    for step in range(400):
        metrics = objective.step({"pool": unlabelled(noise(32, seed=step), seed=step)}, step)
        right.append(float(metrics["accuracy"]))
    answers = 200 * 128
    assert abs(np.mean(right[200:]) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / answers)


def test_a_bright_top_row_is_learnt_completely() -> None:
    objective = rotation()
    for step in range(60):
        images = noise(32, seed=step)
        images[:, :, 0] = 255
        images[:, :, 1:] //= 2
        metrics = objective.step({"pool": unlabelled(images, seed=step)}, step)
    assert float(metrics["accuracy"]) == 1.0


def test_quarters_lie_in_every_order_and_go_back() -> None:
    images = torch.randn(len(ORDERS), 3, 8, 8)
    everywhere, here = np.arange(len(ORDERS)), np.zeros((len(ORDERS), 4, 2), np.int64)
    shown = placed(images, everywhere, here, 0)
    assert torch.equal(shown[0], images[0]), "the first order is none"
    for picture, image, order in zip(shown, images, ORDERS, strict=True):
        for place, quarter in enumerate(order):
            there, was = (
                one.unfold(1, 4, 4).unfold(2, 4, 4)[:, at // 2, at % 2]
                for one, at in ((picture, place), (image, quarter))
            )
            assert torch.equal(there, was)


def test_a_quarter_is_cut_at_its_own_place_with_a_gap_around_it() -> None:
    images = torch.arange(1.0, 65).view(1, 1, 8, 8)
    order = np.array([ORDERS.index((3, 0, 1, 2))])
    places = np.array([[[0, 0], [1, 2], [2, 1], [2, 2]]])  # of the quarters as they lay
    shown = placed(images, order, places, 2)[0, 0]
    assert torch.equal(shown[1:3, 1:3], images[0, 0, 6:8, 6:8]), "quarter 3 lies first, cut at (2, 2)"
    assert torch.equal(shown[1:3, 5:7], images[0, 0, 0:2, 0:2])
    assert torch.equal(shown[5:7, 1:3], images[0, 0, 1:3, 6:8])
    assert torch.equal(shown[5:7, 5:7], images[0, 0, 6:8, 1:3])
    assert int((shown == 0).sum()) == 64 - 16


def test_the_order_is_an_images_own_and_every_order_is_as_likely() -> None:
    made = create_objective(context("patches", model=SMALL, batch={"pool": 8}))
    assert isinstance(made, Patches)
    own, images = seeds(2400), torch.randn(2400, 3, 16, 16)
    shown, order = made.pose(images, own)
    parts = [made.pose(some, few) for some, few in zip(images.split(600), np.split(own, 4), strict=True)]
    assert torch.equal(shown, torch.cat([part for part, _ in parts])), "it depends on the batch"
    assert torch.equal(order, torch.cat([part for _, part in parts]))
    expected = len(own) / len(ORDERS)
    assert (
        float(((order.bincount(minlength=24) - expected) ** 2 / expected).sum()) < 45
    )  # chi-squared, 23 degrees: p = 0.004
    with pytest.raises(SettingsError, match="img_size 15 is odd"):
        create_objective(context("patches", model=SMALL.model_copy(update={"img_size": 15})))


@pytest.mark.parametrize("told", [True, False])
def test_the_order_of_unlike_quarters_is_learnt_and_that_of_like_ones_is_not(told: bool) -> None:
    made = create_objective(
        context("patches", model=SMALL, sched="constant", batch={"pool": 64}, model_ema=False, lr=0.05)
    )
    right = []
    for step in range(100):
        images = noise(64, 16, seed=step)
        if told:
            for quarter in range(4):
                row, column = 8 * (quarter // 2), 8 * (quarter % 2)
                inside = images[:, :, row : row + 8, column : column + 8]
                inside.copy_(inside // 8 + 60 * quarter)
        right.append(float(made.step({"pool": unlabelled(images, seed=step)}, step)["accuracy"]))
    chance = 1 / len(ORDERS)
    if told:
        assert np.mean(right[-5:]) > 10 * chance
    else:
        assert abs(np.mean(right[50:]) - chance) < 4 * math.sqrt(chance / (50 * 64))


def test_holes_are_an_images_own() -> None:
    """The same for any number of workers and any batch, and as many and as large as asked for."""
    own = seeds(64)
    cut = holes(own, 32, (2, 5), (3, 9))
    np.testing.assert_array_equal(cut, np.concatenate([holes(part, 32, (2, 5), (3, 9)) for part in np.split(own, 4)]))
    single = holes(own, 32, (1, 2), (3, 9))
    for mask in single:
        rows, columns = mask.any(1), mask.any(0)
        assert np.array_equal(mask, rows[:, None] & columns)  # one rectangle
        assert 1 <= rows.sum() <= 8
        assert 1 <= columns.sum() <= 8
    whole = [mask for mask in single if not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())]
    assert {int(mask.any(0).sum()) for mask in whole} == set(range(3, 9))
    assert (cut.sum((1, 2)) > 0).all()
    assert not np.array_equal(cut[0], cut[1])


def test_the_error_of_a_network_that_changes_nothing_is_known() -> None:
    pictures = torch.randn(6, 3, 16, 16)
    where = torch.from_numpy(holes(seeds(6), 16, (1, 4), (3, 9)))[:, None]
    cut = pictures.masked_fill(where, 0)
    inside = pictures.square()[where.expand_as(pictures)]
    assert float(squared_error(pictures, pictures, None)) == 0
    torch.testing.assert_close(squared_error(cut, pictures, None), inside.sum() / pictures.numel())
    torch.testing.assert_close(squared_error(cut, pictures, where), inside.mean())


@pytest.mark.parametrize("loss_over", ["picture", "holes"])
def test_inpainting_aims_at_the_picture_without_holes(loss_over: str) -> None:
    made = create_objective(
        context(
            "inpainting",
            model=SMALL,
            batch={"pool": 8},
            model_ema=False,
            lr=0.05,
            objective_args={"holes": [2, 4], "side": [3, 7], "loss_over": loss_over, "width": 8},
        )
    )
    assert isinstance(made, Inpainting)
    batch = unlabelled(noise(8, 16) // 8 + 100)
    pictures = made.views("pool", batch)
    before = pictures.clone()
    damaged, where = made.damage(pictures, batch.seeds)
    assert torch.equal(pictures, before), "the target was cut as well"
    assert (where is None) == (loss_over == "picture")
    assert not torch.equal(damaged, pictures)
    losses = [float(made.step({"pool": batch}, step)["loss"]) for step in range(12)]
    assert losses[-1] < 0.6 * losses[0]


class Unchanged:
    """In place of a learner: answers with what it is shown, and learns nothing."""

    def begin(self, step: int) -> None: ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def update_weights(self, loss: torch.Tensor, step: int) -> dict[str, float]:  # noqa: ARG002
        return {}


def test_what_is_aimed_at_is_the_picture_as_it_was() -> None:
    """Of a network that changes nothing the error is what the damage took away."""
    batch = unlabelled(noise(8, 16))
    for task, arguments in (
        ("inpainting", {"holes": [2, 4], "side": [3, 7], "width": 8}),
        ("colourisation", {"width": 8}),
    ):
        made = create_objective(
            context(task, model=SMALL, batch={"pool": 8}, model_ema=False, objective_args=arguments)
        )
        assert isinstance(made, Restoration)
        pictures = made.views("pool", batch)
        damaged, _ = made.damage(pictures, view_seeds(batch.seeds, 1))
        expected = float((damaged - pictures).square().mean())
        made.learner = Unchanged()  # type: ignore[assignment]
        assert float(made.step({"pool": batch}, 0)["loss"]) == pytest.approx(expected, rel=1e-6)
        assert expected > 0
        if task == "inpainting":
            cut = torch.from_numpy(holes(view_seeds(batch.seeds, 1), 16, (2, 4), (3, 7)))[:, None].expand_as(pictures)
            assert expected == pytest.approx(float(pictures[cut].square().sum()) / pictures.numel(), rel=1e-6)


def test_the_error_in_holes_is_that_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, outputs = torch.randn(2, 4, 3, 8, 8)
    where = torch.from_numpy(holes(seeds(4), 8, (1, 4), (2, 7)))[:, None]
    whole = squared_error(outputs, pictures, where)
    areas = [where[part].sum().float() for part in (slice(1), slice(1, 4))]
    assert areas[0] != areas[1] / 3
    monkeypatch.setattr("engine.fit.restoration.average_over_workers", lambda _: sum(areas) / 2)
    parts = [squared_error(outputs[part], pictures[part], where[part]) for part in (slice(1), slice(1, 4))]
    torch.testing.assert_close(sum(parts) / 2, whole)


def test_colours_come_back_from_grey() -> None:
    made = create_objective(
        context("colourisation", model=SMALL, batch={"pool": 8}, model_ema=False, lr=0.05, objective_args={"width": 8})
    )
    batch = unlabelled(noise(8, 16) // 8 + 100)
    grey, _ = made.damage(torch.randn(2, 3, 4, 4), batch.seeds)  # type: ignore[attr-defined]
    assert torch.equal(grey[:, 0], grey[:, 2])
    losses = [float(made.step({"pool": batch}, step)["loss"]) for step in range(12)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "resnet8_cifar", "wrn_28_2"])
def test_a_unet_stands_on_the_encoders_own_weights(name: str) -> None:
    made = create_objective(context("inpainting", model=ModelSettings(model=name, img_size=32), batch={"pool": 2}))
    assert isinstance(made, Inpainting)
    with torch.no_grad():
        assert made.learner.model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    own = {id(p) for p in made.learner.model.parameters()}
    assert {id(p) for p in made.encoder.parameters()} <= own


def test_what_has_no_pyramid_is_refused() -> None:
    with pytest.raises(ValueError, match="no feature maps of several sizes"):
        UNet(nn.Linear(3, 3))
    with pytest.raises(SettingsError, match=r"objective_args.side: \[5, 5\]"):
        create_objective(context("inpainting", model=SMALL, objective_args={"side": [5, 5]}))


def two_views(**changes: Any) -> TwoViews:
    made = create_objective(context("two_views", model=SMALL, batch={"pool": 16}, model_ema=False, **changes))
    assert isinstance(made, TwoViews)
    return made


def test_two_views_agree_when_they_are_one() -> None:
    still = two_views(noise={"pool": NoiseSettings(hflip=0).model_dump()})
    moved = two_views()
    batch = {"pool": unlabelled(noise(16, 16))}
    assert float(still.step(batch, 0)["agree"]) < 1e-10
    assert float(moved.step(batch, 0)["agree"]) > 1e-3


def test_all_three_terms_of_two_views_count() -> None:
    weights = {"agree": 2.0, "vary": 3.0, "differ": 5.0}
    told = two_views(objective_args=weights).step({"pool": unlabelled(noise(16, 16))}, 0)
    assert all(float(told[name]) > 0 for name in weights)
    expected = sum(weight * float(told[name]) for name, weight in weights.items())
    assert float(told["loss"]) == pytest.approx(expected, rel=1e-5)


def test_the_order_of_the_views_does_not_matter_and_collapse_costs() -> None:
    first, second = torch.randn(2, 64, 8)
    for measure in (invariance_loss, variance_loss, covariance_loss):
        torch.testing.assert_close(measure(first, second), measure(second, first))
    point = torch.zeros(64, 8)
    assert float(invariance_loss(point, point)) == 0
    assert float(variance_loss(point, point)) == pytest.approx(0.99)
    one = torch.randn(64)
    twins = torch.stack([one, one], 1)
    torch.testing.assert_close(covariance_loss(twins, twins), 2 * one.var() ** 2)
    alternating = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(covariance_loss(alternating, alternating)) == 0


@pytest.mark.parametrize("task", ["rotation", "patches", "inpainting", "colourisation", "two_views"])
def test_any_pretext_gives_the_initial_weights(tmp_path: Path, task: str) -> None:
    """Everything but the classifier is taken, also where a pretext has as many classes as the task."""
    made = create_objective(context(task, model=SMALL, batch={"pool": 8}))
    made.step({"pool": unlabelled(noise(8, 16))}, 0)
    save(tmp_path, made.export(), SMALL, list(made.class_names))
    student = create_objective(context("supervised", model=SMALL))
    model = student.export()
    head = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith("head.fc")}
    report = initialise(model, tmp_path, student.class_names)
    expected = [name for name in model.state_dict() if not name.startswith("head.fc")]
    assert report.matched == expected
    if task in ("rotation", "patches"):
        assert load(tmp_path).class_names == list(made.class_names)
        assert sorted(report.mismatched) == ["head.fc.bias", "head.fc.weight"]
    else:
        assert sorted(report.missing) == ["head.fc.bias", "head.fc.weight"]
    after, trained = model.state_dict(), made.export().state_dict()
    assert all(torch.equal(after[name], trained[name]) for name in expected)
    assert all(torch.equal(after[name], tensor) for name, tensor in head.items())


@pytest.mark.parametrize(
    "objective", ["rotation", "patches", "inpainting", "two_views", "fixmatch", "meta_pseudo_labels"]
)
def test_a_setting_without_effect_is_refused(objective: str) -> None:
    with pytest.raises(SettingsError, match=f"objective {objective} has no use for loss"):
        create_objective(context(objective, loss="kl"))


@pytest.mark.parametrize("objective", ["rotation", "patches", "inpainting", "two_views", "fixmatch"])
def test_noise_for_a_stream_that_is_not_there_is_refused(objective: str) -> None:
    with pytest.raises(SettingsError, match="noise names the stream 'pseudo', but batch has"):
        create_objective(context(objective, model=SMALL, batch={"labelled": 8, "pool": 8}, noise={"pseudo": {"pad": 2}}))


@pytest.mark.slow
def test_a_linear_probe_is_better_on_a_pretext_than_on_random_weights() -> None:
    """Digits, features of the body, paired seeds."""
    digits = load_digits()
    side = np.kron(digits.images, np.ones((2, 2)))[:, None].repeat(3, 1)
    pictures = torch.from_numpy((side * (255 / 16)).astype(np.uint8))
    gains = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(pictures))
        shown, known, asked = order[:1000], order[1000:1100], order[1100:]
        accuracies = []
        for steps in (0, 120):
            made = create_objective(
                context(
                    "rotation",
                    model=SMALL,
                    batch={"pool": 16},
                    model_ema=False,
                    seed=seed,
                    sched="constant",
                    lr=0.05,
                    noise={"pool": {"hflip": 0}},
                )
            )
            for step in range(steps):
                drawn = np.random.default_rng([seed, step]).choice(shown, 16)
                made.step({"pool": unlabelled(pictures[drawn], step)}, step)
            body: Any = made.export().eval()
            with torch.no_grad():
                features = body.forward_head(body.forward_features(pictures.float() / 128 - 1), pre_logits=True).numpy()
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
            probe.fit(features[known], digits.target[known])
            accuracies.append(probe.score(features[asked], digits.target[asked]))
        gains.append(accuracies[1] - accuracies[0])
    assert min(gains) > 0, gains
