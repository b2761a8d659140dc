"""Small maps: the matrix product gives what the convolution gives, and stands only where it multiplies less."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from engine.predict.conv_to_matmul import GROWTH, DenseConv, pays, replace_small_convs


@pytest.mark.parametrize(
    ("options", "maps"),
    [
        ({"kernel_size": 3, "padding": 1}, (8, 2, 2)),
        ({"kernel_size": 3, "padding": 1}, (8, 1, 1)),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, (8, 2, 2)),
        ({"kernel_size": 3, "padding": 1, "groups": 4}, (8, 1, 2)),
        ({"kernel_size": 3, "padding": 1, "bias": False}, (8, 2, 1)),
        ({"kernel_size": 5, "padding": "same"}, (8, 3, 2)),
        ({"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, (8, 2, 2)),
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, (8, 2, 2)),
        ({"kernel_size": (1, 7), "padding": (0, 3)}, (8, 1, 5)),
    ],
)
def test_the_product_is_the_convolution(options: dict[str, Any], maps: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, dtype=torch.float64, **options)
    images = torch.randn(5, *maps, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(DenseConv(conv, *maps)(images), conv(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "side", "pay"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), 1, True),
        (nn.Conv2d(4, 4, 3, padding=1), 2, True),
        (nn.Conv2d(4, 4, 3, padding=1), 3, False),  # as many multiplications, nine times the weights
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), 2, False),  # a depthwise one is sparse
        (nn.Conv2d(4, 4, 1), 1, False),  # is one already
        (nn.Conv2d(4, 4, 5, padding=2), 4, False),  # ten times the weights
        (nn.Conv2d(4, 4, 5, padding=2, stride=2), 3, True),
    ],
)
def test_it_stands_where_it_multiplies_less(conv: nn.Conv2d, side: int, pay: bool) -> None:
    maps = torch.zeros(1, 4, side, side)
    outputs = conv(maps)
    assert pays(conv, maps.shape, outputs.shape) == pay
    if pay:
        dense = DenseConv(conv, 4, side, side).product.weight.numel()
        assert dense <= GROWTH * conv.weight.numel()
        assert dense < conv.weight.numel() * outputs[0, 0].numel()


@pytest.mark.parametrize(("size", "swapped"), [(224, 0), pytest.param(64, 3, marks=pytest.mark.slow), (32, 7)])
def test_a_network_answers_as_before(size: int, swapped: int) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=7).eval().double()
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)
        after = replace_small_convs(model, size)(images)
    assert sum(isinstance(module, DenseConv) for module in model.modules()) == swapped
    torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)


class Odd(nn.Module):
    """A convolution that runs on maps of two sizes, one that scales its weights, one that never runs."""

    class Scaled(nn.Conv2d):
        def forward(self, maps: Tensor) -> Tensor:
            return self._conv_forward(maps, 2 * self.weight, self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.scaled = self.Scaled(3, 3, 3, padding=1)
        self.idle = nn.Conv2d(3, 3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.scaled(self.twice(self.twice(images)[..., ::2, ::2])).mean((2, 3))


def test_what_is_not_a_plain_convolution_of_one_size_is_left() -> None:
    model = Odd().eval()
    with torch.no_grad():
        before = model(torch.ones(2, 3, 2, 2))
        after = replace_small_convs(model, 2)(torch.ones(2, 3, 2, 2))
    assert not any(isinstance(module, DenseConv) for module in model.modules())
    assert torch.equal(before, after)
