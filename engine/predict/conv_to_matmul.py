"""Convolutions of maps smaller than their kernel, as the matrix products that they are.

A network made for 224 pixels has maps of 2 x 2 or 1 x 1 at its end when images are small. A 3 x 3 convolution of such a map multiplies mostly by its
padding, and its rows are too short for vector and matrix units. As one matrix product of whole maps it takes less than half of the multiplications
(4/9 at 2 x 2, 1/9 at 1 x 1) and runs at the speed of any other. The sums are the same, in another order.
"""

import torch
from torch import Tensor, nn

GROWTH = 2
"""How many times its weights a convolution may become."""


class DenseConv(nn.Module):
    """A convolution of maps (C, h, w), as a matrix product."""

    def __init__(self, conv: nn.Conv2d, channels: int, height: int, width: int) -> None:
        super().__init__()
        inputs = channels * height * width
        # what comes of a map that is one at one place and zero elsewhere is that place's row of the matrix
        units = torch.eye(inputs, dtype=conv.weight.dtype, device=conv.weight.device).view(-1, channels, height, width)
        rows = conv._conv_forward(units, conv.weight, None)
        self.outputs = rows.shape[1:]
        self.product = nn.Linear(inputs, rows[0].numel(), conv.bias is not None)
        self.product.weight = nn.Parameter(rows.flatten(1).T.contiguous(), requires_grad=False)
        if conv.bias is not None:
            bias = conv.bias.repeat_interleave(rows[0, 0].numel())
            self.product.bias = nn.Parameter(bias.clone(), requires_grad=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.product(maps.flatten(1)).unflatten(1, self.outputs)


def pays(conv: nn.Conv2d, maps: torch.Size, outputs: torch.Size) -> bool:
    """Whether the matrix product of `maps` (N, C, h, w) to `outputs` multiplies less often than the convolution, with at most GROWTH times as
    many weights."""
    kernel, places = conv.weight[0, 0].numel(), maps[-2:].numel() * conv.groups
    return places < kernel and places * outputs[-2:].numel() <= GROWTH * kernel


@torch.no_grad()
def replace_small_convs(model: nn.Module, size: int) -> nn.Module:
    """`model`, for images of `size` pixels, with matrix products in place of the convolutions where they pay. Changes the model that it is given."""
    found: dict[nn.Conv2d, set[tuple[torch.Size, torch.Size]]] = {}

    def note(conv: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        found.setdefault(conv, set()).add((inputs[0].shape, output.shape))

    # subclasses pad or scale in ways of their own
    hooks = [module.register_forward_hook(note) for module in model.modules() if type(module) is nn.Conv2d]
    first = next(model.parameters())
    model(torch.zeros((1, 3, size, size), dtype=first.dtype, device=first.device))
    for hook in hooks:
        hook.remove()
    for path, module in list(model.named_modules()):
        shapes = found.get(module) if isinstance(module, nn.Conv2d) else None
        if shapes is None or len(shapes) > 1:  # never run, or on maps of several sizes
            continue
        maps, outputs = next(iter(shapes))
        if pays(module, maps, outputs):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, DenseConv(module, *maps[1:]))
    return model
