"""Losses against finite differences and at their known minimisers."""

import math

import pytest
import torch
from torch import Tensor

from engine.fit import losses
from engine.fit.losses import LOSSES, dense, smooth, sparse_soft_ce

Q = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
SOFTMAX_MINIMISED = ("soft_ce", "kl", "tempered_ce", "mse")
SIGMOID_MINIMISED = ("bce", "quality_focal")


def sparse_targets() -> tuple[Tensor, Tensor]:
    classes = torch.tensor([[2, -1, -1], [0, 4, 3], [1, 0, -1]])
    weights = torch.tensor([[1.0, 0, 0], [0.5, 0.3, 0.1], [0.6, 0.4, 0]], dtype=torch.float64)
    return classes, weights


def test_dense_spreads_the_missing_mass_over_the_unlisted_classes() -> None:
    expected = [[0, 0, 1, 0, 0], [0.5, 0.05, 0.05, 0.1, 0.3], [0.4, 0.6, 0, 0, 0]]
    torch.testing.assert_close(dense(*sparse_targets(), 5), torch.tensor(expected, dtype=torch.float64))


def test_smoothing_is_of_hard_targets_only() -> None:
    classes, weights = sparse_targets()
    smoothed = dense(classes, smooth(classes, weights, 0.1, 5), 5)
    torch.testing.assert_close(smoothed[0], torch.tensor([0.02, 0.02, 0.92, 0.02, 0.02], dtype=torch.float64))
    torch.testing.assert_close(smoothed[1:], dense(classes, weights, 5)[1:])


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "mse_logits"])
def test_gradients_equal_finite_differences(name: str) -> None:
    classes, weights = sparse_targets()
    q = dense(classes, weights, 5)
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: LOSSES[name](z, q), logits)
    assert LOSSES[name](logits, q).shape == (3,)


def test_sparse_soft_ce_is_soft_ce() -> None:
    classes, weights = sparse_targets()
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    value = sparse_soft_ce(logits, classes, weights)
    torch.testing.assert_close(value, losses.soft_ce(logits, dense(classes, weights, 5)))
    assert torch.autograd.gradcheck(lambda z: sparse_soft_ce(z, classes, weights), logits)
    torch.testing.assert_close(value[:1], torch.nn.functional.cross_entropy(logits[:1], torch.tensor([2])).reshape(1))
    expected = (logits.softmax(1) - dense(classes, weights, 5)).detach()
    torch.testing.assert_close(torch.autograd.grad(value.sum(), logits)[0], expected)


@pytest.mark.parametrize("name", [*SOFTMAX_MINIMISED, *SIGMOID_MINIMISED])
def test_the_minimiser_is_the_target(name: str) -> None:
    logits = (Q.log() if name in SOFTMAX_MINIMISED else Q.logit()).requires_grad_()
    value = LOSSES[name](logits, Q)
    assert torch.autograd.grad(value.sum(), logits)[0].abs().max() < 1e-9
    floor = {"soft_ce": losses.entropy(Q), "bce": None, "tempered_ce": None}.get(name, torch.zeros(1))
    if floor is not None:
        torch.testing.assert_close(value.detach(), floor.to(value), atol=1e-12, rtol=0)


def test_documented_biases() -> None:
    sharpened = Q.logit().softmax(1)
    torch.testing.assert_close(sharpened, torch.tensor([[0.866, 0.093, 0.041]], dtype=torch.float64), atol=1e-3, rtol=0)
    p = torch.linspace(0.5, 0.8, 3001, dtype=torch.float64)
    logits, q = torch.stack([p, 1 - p], 1).log(), torch.tensor([[0.7, 0.3]], dtype=torch.float64)
    for gamma, learnt in ((1, 0.617), (2, 0.579)):
        assert float(p[losses.focal(logits, q, gamma).argmin()]) == pytest.approx(learnt, abs=1e-3)
    confident = torch.tensor([[8.0, 0, 0]], dtype=torch.float64, requires_grad=True)
    truth = torch.tensor([[0.0, 0, 1]], dtype=torch.float64)
    slopes = [torch.autograd.grad(LOSSES[name](confident, truth).sum(), confident)[0] for name in ("mse", "soft_ce")]
    assert float(slopes[0].abs().max()) == pytest.approx(6.7e-4, rel=0.02)
    assert float(slopes[1].abs().max()) == pytest.approx(1.0, rel=0.01)


def test_tempered_ce_at_one_is_soft_ce() -> None:
    logits = torch.randn(1, 3, dtype=torch.float64)
    torch.testing.assert_close(losses.tempered_ce(logits, Q, temperature=1), losses.soft_ce(logits, Q))


def test_mse_logits_wants_logits() -> None:
    teacher = torch.tensor([[3.0, -1.0, 0.5]])
    assert losses.mse_logits(teacher, teacher).item() == 0
    assert losses.mse_logits(teacher + 2, teacher).item() == pytest.approx(4)
    with pytest.raises(ValueError, match="probabilities"):
        losses.mse_logits(teacher, Q.float())


def test_entropy_of_certainty_is_zero() -> None:
    assert losses.entropy(torch.tensor([[1.0, 0.0]])).item() == 0
    assert losses.entropy(torch.tensor([[0.5, 0.5]])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "mse_logits"])
@pytest.mark.parametrize("truth", [0, 1])
def test_certainty_keeps_values_and_gradients_finite(name: str, truth: int) -> None:
    logits = torch.tensor([[80.0, -80.0, 0.0]], requires_grad=True)
    options = {"gamma": 0.5} if "focal" in name else {}
    value = LOSSES[name](logits, torch.eye(3)[[truth]], **options)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_every_loss_says_what_it_is_defined_on_and_refuses_the_rest() -> None:
    assert losses.PAIRS.keys() == LOSSES.keys()
    for name, kinds in losses.PAIRS.items():
        for kind in ("distribution", "logits", "labels"):
            if kind in kinds:
                losses.refuse_pairing(name, {"soft": kind})
            else:
                with pytest.raises(ValueError, match=f"loss {name} wants .* 'soft' holds {kind}: set fit.loss to"):
                    losses.refuse_pairing(name, {"labelled": kinds[0], "soft": kind})


def test_several_labels_have_no_residual_mass() -> None:
    classes, weights = torch.tensor([[2, 0], [-1, -1]]), torch.tensor([[1.0, 0.5], [0, 0]])
    assert losses.dense_labels(classes, weights, 4).tolist() == [[0.5, 0, 1, 0], [0, 0, 0, 0]]
