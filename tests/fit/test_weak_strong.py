"""FixMatch and UDA against their formulae, FreeMatch's cut against a plain transcription."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.fit.batch import Batch
from engine.fit.objective import create_objective
from engine.fit.weak_strong import ConfidenceThreshold, WeakStrong, WeakStrongArguments
from engine.images.counter_rng import view_seeds
from engine.settings.block import SettingsError
from engine.settings.fit import NoiseSettings
from tests.fit.objectives import context, labelled, noise, seeds, unlabelled

BATCH = {"labelled": 4, "pool": 12}
STILL = NoiseSettings(hflip=0).model_dump()


def made(name: str, **changes: Any) -> WeakStrong:
    changes = {"batch": BATCH, "model_ema": False, **changes}
    objective = create_objective(context(name, **changes))
    assert isinstance(objective, WeakStrong)
    return objective


def batches() -> dict[str, Batch]:
    return {"labelled": labelled(noise(4), torch.arange(4)), "pool": unlabelled(noise(12, seed=1), 1)}


VIEWS = {"labelled": ("labelled", 0), "weak": ("pool", 0), "strong": ("pool", 1)}


def logits(objective: WeakStrong, which: str, images: Tensor, own: np.ndarray) -> Tensor:
    with torch.no_grad():
        return objective.learner.model(objective.views.view(*VIEWS[which])(images, own)[0])


@pytest.mark.parametrize("name", ["fixmatch", "uda"])
def test_the_loss_is_that_of_the_paper(name: str) -> None:
    objective = made(name, objective_args={"threshold": 0.6, "weight": 2.0})
    batch = batches()
    known = logits(objective, "labelled", batch["labelled"].images, batch["labelled"].seeds)
    weak, strong = (
        logits(objective, which, batch["pool"].images, view_seeds(batch["pool"].seeds, number))
        for number, which in enumerate(("weak", "strong"), 1)
    )
    each = []
    for w, s in zip(weak, strong, strict=True):
        target = F.one_hot(w.argmax(), 4).float() if name == "fixmatch" else (w / 0.4).softmax(0)
        sure = float(w.softmax(0).max() >= 0.6)
        each.append(-sure * float((target * s.log_softmax(0)).sum()))
    metrics = objective.step(batch, 0)
    true = F.cross_entropy(known, torch.arange(4))
    assert 0 < float(metrics["kept"]) < 1
    assert float(metrics["loss/pool"]) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(float(true) + 2 * np.mean(each), rel=1e-5)


def test_targets_teach_but_are_not_taught() -> None:
    """Where the strong view is the weak one and nothing is sharpened, p - p leaves no gradient."""
    arguments = {"threshold": 0.0, "temperature": 1.0, "weak": STILL}
    one, other = (
        made("uda", objective_args={**arguments, "weight": weight}, noise={"pool": STILL}) for weight in (1.0, 0.0)
    )
    for each in (one, other):
        each.step(batches(), 0)
    for a, b in zip(one.learner.model.parameters(), other.learner.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_weak_and_strong_views_draw_apart() -> None:
    own = seeds(1000)
    assert len(set(own) | set(view_seeds(own, 1)) | set(view_seeds(own, 2))) == 3000
    np.testing.assert_array_equal(view_seeds(own, 2)[10:20], view_seeds(own[10:20], 2))


def test_freematch_cuts_are_those_of_its_paper() -> None:
    targets = ConfidenceThreshold(WeakStrongArguments(cut="freematch", momentum=0.9), 3)
    confidence, classes = 1 / 3, np.full(3, 1 / 3)
    for step in range(30):
        p = np.random.default_rng(step).dirichlet((4.0, 1.0, 0.5), 16)
        confidence = 0.9 * confidence + 0.1 * p.max(1).mean()
        classes = 0.9 * classes + 0.1 * p.mean(0)
        cut = np.minimum(0.95, confidence * classes / classes.max())
        kept = targets(torch.tensor(p, dtype=torch.float32))
        np.testing.assert_array_equal(kept.numpy(), p.max(1) >= cut[p.argmax(1)])
    assert cut[0] > cut[2]
    again = ConfidenceThreshold(WeakStrongArguments(cut="freematch"), 3)
    again.load_state_dict(targets.state_dict())
    assert torch.equal(again.classes, targets.classes)


def test_the_cut_travels_in_checkpoints() -> None:
    objective = made("fixmatch", objective_args={"cut": "freematch"})
    objective.step(batches(), 0)
    again = made("fixmatch", objective_args={"cut": "freematch"})
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.targets.classes, objective.targets.classes)
    assert not torch.equal(again.targets.classes, torch.full((4,), 0.25))


def test_labels_make_up_their_share_of_every_batch() -> None:
    """A pool that is sure of nothing leaves the true labels alone to teach."""
    objective = made("fixmatch", objective_args={"threshold": 1.0})
    metrics = objective.step(batches(), 0)
    assert float(metrics["kept"]) == 0
    assert float(metrics["loss"]) == float(metrics["loss/labelled"]) > 0


@pytest.mark.parametrize("name", ["fixmatch", "uda", "meta_pseudo_labels"])
def test_wrong_streams_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"labelled and pool.*batch has labelled: set"):
        made(name, batch={"labelled": 4})
    with pytest.raises(SettingsError, match="did you mean 'threshold'"):
        made(name, objective_args={"treshold": 0.5})
