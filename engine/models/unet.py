"""A U-Net on the encoder of any timm model that tells its feature maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """Pictures of the size of the input: `encoder`'s feature maps, from the deepest up, joined one by one.

    encoder: a timm model without its classifier, whose weights are shared, not copied. Raises ValueError for one that
    has no pyramid of feature maps.
    """

    def __init__(self, encoder: nn.Module, outputs: int = 3, width: int = 32) -> None:
        super().__init__()
        self.encoder = encoder
        found = getattr(encoder, "feature_info", None)
        if not isinstance(found, list) or len({level["reduction"] for level in found}) < 2:
            raise ValueError(
                f"{type(encoder).__name__} has no feature maps of several sizes to build a U-Net on: choose a convolutional model"
            )
        channels = [level["num_chs"] for level in found]
        below = channels[-1]
        self.joins = nn.ModuleList()
        for skip in reversed(channels[:-1]):
            self.joins.append(_block(below + skip, max(width, skip)))
            below = max(width, skip)
        self.last = nn.Sequential(_block(below + 3, width), nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, H, W) of normalised images (B, 3, H, W)."""
        features = self.encoder.forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]
        below = features[-1]
        for join, skip in zip(self.joins, reversed(features[:-1]), strict=True):
            below = join(_joined(below, skip))
        return self.last(_joined(below, x))


def _joined(below: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([F.interpolate(below, skip.shape[-2:], mode="nearest"), skip], 1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU, twice."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
