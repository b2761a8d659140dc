"""A U-Net on the encoder of any timm model with `feature_info`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """Images of the size of the input, decoded from the feature maps of `encoder`, deepest first.

    `encoder`: a timm model without its classifier; its weights are shared, not copied. Raises ValueError for an encoder
    without feature maps of several sizes.
    """

    def __init__(self, encoder: nn.Module, outputs: int = 3, width: int = 32) -> None:
        super().__init__()
        self.encoder = encoder
        found = getattr(encoder, "feature_info", None)
        if not isinstance(found, list) or len({level["reduction"] for level in found}) < 2:
            raise ValueError(
                f"{type(encoder).__name__} has no feature maps of several sizes, which a U-Net needs. Choose a convolutional model."
            )
        channels = [level["num_chs"] for level in found]
        deeper = channels[-1]
        self.joins = nn.ModuleList()
        for skip in reversed(channels[:-1]):
            self.joins.append(_block(deeper + skip, max(width, skip)))
            deeper = max(width, skip)
        self.last = nn.Sequential(_block(deeper + 3, width), nn.Conv2d(width, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, outputs, H, W) of normalised images (B, 3, H, W)."""
        features = self.encoder.forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]
        deeper = features[-1]
        for join, skip in zip(self.joins, reversed(features[:-1]), strict=True):
            deeper = join(_joined(deeper, skip))
        return self.last(_joined(deeper, x))


class PixelClassifier(UNet):
    """A U-Net whose outputs are logits of classes, described as timm describes its models."""

    def __init__(self, encoder: nn.Module, num_classes: int, width: int = 32) -> None:
        super().__init__(encoder, num_classes, width)
        self.num_features = width
        self.pretrained_cfg = {**getattr(encoder, "pretrained_cfg", {}), "classifier": "last.1", "crop_pct": 1.0}

    def get_classifier(self) -> nn.Module:
        """The layer that tells the classes of pixels apart."""
        return self.last[1]


def _joined(deeper: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([F.interpolate(deeper, skip.shape[-2:], mode="nearest"), skip], 1)


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
