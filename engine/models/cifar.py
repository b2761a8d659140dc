"""Networks for images of about 32 pixels, registered with timm: WRN-28-2, and a small network for CPUs."""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import ClassifierHead, DropPath
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

_CFG: dict[str, Any] = {
    "input_size": (3, 32, 32),
    "num_classes": 10,
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.4914, 0.4822, 0.4465),  # of the CIFAR-10 training images
    "std": (0.2470, 0.2435, 0.2616),
    "classifier": "head.fc",
}
default_cfgs = generate_default_cfgs(
    {"wrn_28_2": {**_CFG, "first_conv": "body.0"}, "resnet8_cifar": {**_CFG, "first_conv": "body.0.0"}}
)


class CifarNetwork(nn.Module):
    """A body with `num_features` output channels, and timm's head: pooling, dropout, linear classifier.

    `levels`: the layers of the body that output the feature maps, as {layer: (channels, reduction)}.
    """

    def __init__(
        self,
        body: nn.Sequential,
        levels: dict[int, tuple[int, int]],
        num_features: int,
        num_classes: int,
        global_pool: str,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.feature_info = [
            {"num_chs": channels, "reduction": reduction, "module": f"body.{layer}"}
            for layer, (channels, reduction) in levels.items()
        ]
        self._levels = tuple(levels)
        self.num_classes, self.num_features, self.head_hidden_size, self.drop_rate = (
            num_classes,
            num_features,
            num_features,
            drop_rate,
        )
        self.body = body
        self.head = ClassifierHead(num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by one for `num_classes`; 0 returns the pooled features."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Feature map (B, num_features, h, w) of normalised images (B, in_chans, H, W)."""
        return self.body(x)

    def forward_intermediates(self, x: Tensor, intermediates_only: bool = True) -> list[Tensor]:
        """Feature maps of the levels in `feature_info`, finest first."""
        assert intermediates_only
        maps = []
        for number, layer in enumerate(self.body):
            x = layer(x)
            if number in self._levels:
                maps.append(x)
        return maps

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) of a feature map, or its pooled features (B, num_features)."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalised images (B, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))


class PreActivationBlock(nn.Module):
    """BN, leaky ReLU, 3x3, BN, leaky ReLU, 3x3, plus the input; the first block activates its shortcut too."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        drop_path: float,
        activate_shortcut: bool,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.activate_shortcut = activate_shortcut
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if inputs != outputs else nn.Identity()
        self.act = nn.LeakyReLU(0.1, inplace=True)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.activate_shortcut:
            x = residual = self.act(self.norm1(x))
        else:
            residual = self.act(self.norm1(x))
        residual = self.conv2(self.act(self.norm2(self.conv1(residual))))
        return self.shortcut(x) + self.drop_path(residual)


class WideResNet(CifarNetwork):
    """WRN-depth-width (Zagoruyko, Komodakis 2016) as used in semi-supervised learning (MixMatch, FixMatch).

    Leaky ReLU of slope 0.1; no dropout between convolutions, `drop_rate` acts before the classifier; stochastic depth
    grows linearly with the block. `bn_momentum` is torch's, the weight of the new batch: 0.001 is momentum 0.999 in TensorFlow. Running statistics
    then take about 5,000 steps to forget their initial values: use 0.1 for shorter runs.
    """

    def __init__(
        self,
        depth: int = 28,
        width: int = 2,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        bn_momentum: float = 0.001,
    ) -> None:
        blocks_per_stage, remainder = divmod(depth - 4, 6)
        if remainder:
            raise ValueError(f"depth={depth}: a wide residual network needs depth 6 n + 4")

        def norm(channels: int) -> nn.Module:
            return nn.BatchNorm2d(channels, eps=1e-3, momentum=bn_momentum)

        rates = torch.linspace(0, drop_path_rate, 3 * blocks_per_stage).tolist()
        channels = 16
        layers: list[nn.Module] = [nn.Conv2d(in_chans, channels, 3, 1, 1, bias=False)]
        levels: dict[int, tuple[int, int]] = {}
        for stage in range(3):
            for block in range(blocks_per_stage):
                outputs, stride = 16 * width * 2**stage, 2 if stage > 0 and block == 0 else 1
                layers.append(PreActivationBlock(channels, outputs, stride, rates.pop(0), len(layers) == 1, norm))
                channels = outputs
            levels[len(layers) - 1] = (channels, 2**stage)
        layers += [norm(channels), nn.LeakyReLU(0.1, inplace=True)]
        levels[len(layers) - 1] = levels.pop(len(layers) - 3)
        super().__init__(nn.Sequential(*layers), levels, channels, num_classes, global_pool, drop_rate)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ResidualPair(nn.Module):
    """Two convolutions plus the input."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.convs = nn.Sequential(_conv(channels, channels), _conv(channels, channels))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.convs(x))


class SmallResNet(CifarNetwork):
    """Eight convolutions for CPUs: the first is strided, so that the others work at a half, a quarter and an eighth of the side.

    `width`: output channels of the first convolution; the last has eight times as many.
    """

    def __init__(
        self,
        width: int = 32,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        body = nn.Sequential(
            _conv(in_chans, width, stride=2),
            _conv(width, 2 * width),
            ResidualPair(2 * width, drop_path_rate / 2),
            _conv(2 * width, 4 * width),
            nn.MaxPool2d(2),
            _conv(4 * width, 8 * width),
            nn.MaxPool2d(2),
            ResidualPair(8 * width, drop_path_rate),
        )
        levels = {2: (2 * width, 2), 5: (8 * width, 4), 7: (8 * width, 8)}
        super().__init__(body, levels, 8 * width, num_classes, global_pool, drop_rate)


def _create(kind: type[CifarNetwork], variant: str, pretrained: bool, **kwargs: Any) -> CifarNetwork:
    return build_model_with_cfg(kind, variant, pretrained, **kwargs)


@register_model
def wrn_28_2(pretrained: bool = False, **kwargs: Any) -> CifarNetwork:
    """WRN-28-2: 1.47 M parameters for ten classes."""
    return _create(WideResNet, "wrn_28_2", pretrained, **kwargs)


@register_model
def resnet8_cifar(pretrained: bool = False, **kwargs: Any) -> CifarNetwork:
    """Eight convolutions and 1.65 M parameters at the default `width` of 32."""
    return _create(SmallResNet, "resnet8_cifar", pretrained, **kwargs)
