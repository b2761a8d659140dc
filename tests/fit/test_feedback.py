"""The feedback of Meta Pseudo Labels against derivatives that are known: finite differences, full enumeration, small steps."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.fit.feedback import draw, product, sampled_term, slopes, soft_term

RATE, CLASSES, IMAGES = 0.3, 3, 4


class World:
    """A linear teacher and a small student in float64, with everything about them computed the long way."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.x_u, self.x_l = torch.randn(IMAGES, 5).double(), torch.randn(6, 5).double()
        self.y_l = torch.arange(6) % CLASSES
        self.teacher = torch.randn(5, CLASSES).double().requires_grad_()
        self.student = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, CLASSES)).double()
        self.weights = {name: p.detach() for name, p in self.student.named_parameters()}

    def answers(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(self.student, dict(weights), (x,))

    def gradient(self, target: Tensor) -> dict[str, Tensor]:
        """g of the mean loss on `target`, at the student's weights."""

        def loss(weights: dict[str, Tensor]) -> Tensor:
            return -(target * self.answers(weights, self.x_u).log_softmax(1)).sum(1).mean()

        return torch.func.grad(loss)(self.weights)

    def loss_after(self, target: Tensor, rate: float = RATE) -> Tensor:
        """M: the labelled loss after one step of gradient descent on `target`."""
        gradient = self.gradient(target)
        return F.cross_entropy(
            self.answers({n: w - rate * gradient[n] for n, w in self.weights.items()}, self.x_l), self.y_l
        )

    def progress(self, target: Tensor, rate: float = RATE) -> dict[str, Tensor]:
        """v at the weights after the step."""
        gradient = self.gradient(target)
        after = {n: w - rate * gradient[n] for n, w in self.weights.items()}
        return torch.func.grad(lambda w: F.cross_entropy(self.answers(w, self.x_l), self.y_l))(after)

    def logits(self) -> Tensor:
        return self.x_u @ self.teacher


def soft_gradient(world: World, progress: Mapping[str, Tensor]) -> Tensor:
    slope = slopes(world.student, world.weights, progress, world.x_u)
    return torch.autograd.grad(soft_term(world.logits(), RATE, slope), world.teacher)[0]


def test_the_gradient_of_soft_labels_is_that_of_finite_differences() -> None:
    world = World()
    found = soft_gradient(world, world.progress(world.logits().detach().softmax(1)))
    expected, step = torch.zeros_like(found), 1e-5
    for place in np.ndindex(5, CLASSES):
        moved = []
        for sign in (1, -1):
            teacher = world.teacher.detach().clone()
            teacher[place] += sign * step
            moved.append(float(world.loss_after((world.x_u @ teacher).softmax(1))))
        expected[place] = (moved[0] - moved[1]) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-10)
    assert float(found.norm()) > 1e-4


def test_drawn_labels_give_the_same_gradient_in_the_mean_over_all_draws() -> None:
    """REINFORCE by full enumeration of 3^4 labellings, with any constant taken off the feedback."""
    world = World()
    probabilities = world.logits().detach().softmax(1)
    progress = world.progress(probabilities)
    expected = soft_gradient(world, progress)
    for baseline in (0.0, 0.7):
        total = torch.zeros_like(world.teacher)
        for labels in itertools.product(range(CLASSES), repeat=IMAGES):
            drawn = torch.tensor(labels)
            chance = probabilities.gather(1, drawn[:, None]).prod()
            h = product(RATE, progress, world.gradient(F.one_hot(drawn, CLASSES).double()))
            term = sampled_term(world.logits(), drawn, h - baseline)
            total += chance * torch.autograd.grad(term, world.teacher)[0]
        torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-14)


def test_old_minus_new_is_the_product_for_small_steps() -> None:
    """The ratio of the two goes to 1, with its sign: new minus old would go to -1."""
    world = World()
    target = F.one_hot(torch.tensor([0, 1, 2, 0]), CLASSES).double()
    old = F.cross_entropy(world.answers(world.weights, world.x_l), world.y_l)
    errors = []
    for rate in (1e-1, 1e-2, 1e-3, 1e-4):
        h = product(rate, world.progress(target, rate), world.gradient(target))
        errors.append(abs(float(h / (old - world.loss_after(target, rate))) - 1))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3
    assert errors[0] < 1


def test_labels_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = torch.tensor([[0.5, 0.0, 0.2, 0.3]]).expand(20_000, -1)
    drawn = draw(probabilities, (np.arange(20_000) + 0.5) / 20_000)
    assert drawn.bincount(minlength=4).tolist() == [10_000, 0, 4_000, 6_000]
    assert draw(probabilities[:2], np.array([0.0, np.nextafter(1, 0)])).tolist() == [0, 3]
