"""What belongs to Noisy Student alone: published noise by size, the two normalisations of the loss, the zero gradient, the size of the student."""

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.fit.check import check_students
from engine.fit.losses import soft_ce
from engine.fit.supervised import stream_weights
from engine.models.build import num_parameters, warn_if_smaller
from engine.recipes.efficientnet import SIZES, published
from engine.recipes.registry import SelfTrainSettings
from engine.settings.block import SettingsError, parse
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from tests.small_run import run_tree

FIT = FitSettings(steps=1, batch={"labelled": 8})


def test_every_published_size_is_reached_by_its_name() -> None:
    for size, told in SIZES.items():
        model, fit = published(ModelSettings(model=f"tf_efficientnet_{size}"), FIT)
        assert (model.img_size, model.drop, model.drop_path) == (told.img_size, told.drop, 0.2)
        assert fit.batch == {"labelled": 8, "pseudo": 8 * told.ratio}
        assert all(noise.aa_magnitude == told.magnitude for noise in fit.noise.values() if told.magnitude)
        assert all((noise.aa_num_ops == 2) == (told.magnitude > 0) for noise in fit.noise.values())
        assert all(noise.aa_scale == "tf" for noise in fit.noise.values() if told.magnitude)
    assert (SIZES["b0"].magnitude, SIZES["b7"].magnitude, SIZES["l2"].ratio) == (0, 27, 14)


def test_published_noise_fills_in_what_is_not_set(tmp_path: Path) -> None:
    """28:1 stays 28:1, also where a schedule changes something else; so do a size, a dropout and one stream's noise."""
    tree: dict[str, Any] = run_tree(
        run="r",
        store=str(tmp_path),
        generations=1,
        published_noise=True,
        data={"labelled": "l", "pool": "p"},
        teacher_model={"model": "tf_efficientnet_b0"},
        student_model={"model": "tf_efficientnet_l2", "drop": 0.1},
        teacher={"steps": 1, "batch": {"labelled": 2}},
        student={"steps": 1, "batch": {"labelled": 2, "pseudo": 56}, "noise": {"labelled": {"pad": 3}}},
    )
    for schedule in (None, [{"fits.student.lr": 0.2}]):
        settings = parse(SelfTrainSettings, {**tree, "schedule": schedule}, "test")
        model, fit = settings.recipe.learner(settings, 1)
        assert (model.img_size, model.drop, model.drop_path) == (475, 0.1, 0.2)
        assert fit.batch == {"labelled": 2, "pseudo": 56}
        assert (fit.noise["labelled"].pad, fit.noise["labelled"].aa_num_ops) == (3, 0)
        assert fit.noise["pseudo"].aa_magnitude == 27
        assert fit.lr == (0.1 if schedule is None else 0.2)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b8", "efficientnetv2_s"])
def test_other_networks_have_no_published_noise(name: str) -> None:
    with pytest.raises(ValueError, match="published_noise is of EfficientNets"):
        published(ModelSettings(model=name), FIT)


def test_the_programs_loss_is_one_plus_r_times_the_papers() -> None:
    labelled, pseudo = torch.rand(4, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    batch = {"labelled": 4, "pseudo": 12}
    paper = stream_weights(FitSettings(steps=1, batch=batch))
    program = stream_weights(FitSettings(steps=1, batch=batch, stream_weight={"labelled": 1, "pseudo": 3}))
    loss = [w["labelled"] * labelled.mean() + w["pseudo"] * pseudo.mean() for w in (paper, program)]
    torch.testing.assert_close(loss[0], torch.cat([labelled, pseudo]).mean())
    torch.testing.assert_close(loss[1], (1 + 3) * loss[0])


def test_without_noise_soft_labels_of_an_identical_net_teach_nothing() -> None:
    net = torch.nn.Linear(5, 3, dtype=torch.float64)
    images = torch.randn(7, 5, dtype=torch.float64)
    loss = soft_ce(net(images), net(images).softmax(1).detach()).mean()
    assert torch.autograd.grad(loss, net.weight)[0].abs().max() < 1e-15
    noised = soft_ce(net(images + 0.1), net(images).softmax(1).detach()).mean()
    assert torch.autograd.grad(noised, net.weight)[0].abs().max() > 1e-4


def test_a_smaller_student_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": width}) for width in (8, 16))
    assert num_parameters(small, 10) < num_parameters(large, 10)
    assert warn_if_smaller(large, small, 10)
    assert "fewer than its teacher's" in capsys.readouterr().out
    assert not warn_if_smaller(small, large, 10)
    assert not warn_if_smaller(small, small, 10)
    assert capsys.readouterr().out == ""


def filtered(schedule: list[dict[str, Any]], **changed: Any) -> SelfTrainSettings:
    fit = {"steps": 1, "batch": {"labelled": 1}}
    flat: dict[str, Any] = {
        "run": "r",
        "generations": len(schedule),
        "relabel": "filtered",
        "data": {"labelled": "l", "pool": "p"},
        "teacher_model": {"model": "resnet18"},
        "teacher": fit,
        "student": {"steps": 1, "batch": {"labelled": 1, "pseudo": 1}},
        "schedule": schedule,
        **changed,
    }
    return parse(SelfTrainSettings, run_tree(**flat), "test")


def test_a_later_threshold_that_would_be_ignored_is_refused() -> None:
    """With relabel=filtered the first selection alone chooses images; only how labels are written may change."""
    filtered([{"select.threshold": 0.9}, {"select.threshold": 0.9, "select.targets": "hard"}])
    filtered([{"select.threshold": 0.9}, {"select.threshold": 0.5}], relabel="everything")
    for changed in ({"select.threshold": 0.5}, {"select.threshold": 0.9, "select.per_class": 10}):
        with pytest.raises(SettingsError, match=r"lets generation 2 relabel .* take select\.(threshold|per_class)"):
            filtered([{"select.threshold": 0.9}, changed])


@pytest.mark.parametrize("recipe", ["threshold", "clean_labels"])
def test_confidence_thresholding_needs_a_cut_and_labels_hard(recipe: str) -> None:
    """It kept everything, softly: scikit-learn's default is 0.75, Lee's labels are classes."""
    options = {"recipe": recipe, "relabel": "everything"}
    with pytest.raises(SettingsError, match=r"set select\.threshold"):
        filtered([{}, {}], **options)
    with pytest.raises(SettingsError, match=r"set select\.threshold"):
        filtered([{"select.threshold": 0.5}, {"select.threshold": 0}], **options)
    for select, targets in (({"threshold": 0.5}, "hard"), ({"per_class": 5, "targets": "soft"}, "soft")):
        run = filtered([{}, {}], select=select, **options)
        assert run.recipe.selection(run, 1).targets == targets


def test_a_loss_that_is_not_exact_on_the_pseudo_labels_is_refused_before_the_teacher_learns() -> None:
    student = {"steps": 1, "batch": {"labelled": 1, "pseudo": 1}, "loss": "focal"}
    with pytest.raises(SettingsError, match="loss focal is biased on soft targets"):
        filtered([{}], student=student)
    filtered([{}], student=student, select={"targets": "hard"})
    tempered = filtered([{}], student={**student, "loss": "tempered_ce"}, predict={"top_p": 8})
    check_students(tempered, 8)
    with pytest.raises(SettingsError, match="generation 1: loss tempered_ce raises every probability"):
        check_students(tempered, 1000)
