"""Heads: classifiers of cached features, as arithmetic and as a file."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor

FILE = "head.safetensors"
FLOOR = 1e-6
"""Probability of a class that no neighbour votes for, so that its log-odds are finite."""
BANK_CELLS = 2**24
"""Similarities held at once: float32, 64 MiB."""


class Head(Protocol):
    """Logits of features."""

    def logits(self, features: Tensor) -> Tensor:
        """float32 (N, C) of features float32 (N, D)."""

    def to_bytes(self) -> bytes:
        """The head as a safetensors file."""


@dataclass(frozen=True)
class LinearHead:
    """`weight` float32 (C, D) and `bias` float32 (C,) on the features as the network gives them."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)

    def to_bytes(self) -> bytes:
        return save({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()})


@dataclass(frozen=True)
class NeighbourHead:
    """The k nearest of n labelled images vote with exp(cosine / temperature) (Wu et al.: Unsupervised feature learning via non-parametric instance
    discrimination, 2018). Cosines are taken of z = (x - mean) / scale.

    `bank` float32 (n, D): the labelled images' z, each of length 1; `targets` float32 (n, C): their votes.
    """

    bank: Tensor
    targets: Tensor
    mean: Tensor
    scale: Tensor
    neighbours: int
    temperature: float

    def logits(self, features: Tensor) -> Tensor:
        """Logarithms of the shares of the votes, exact over the whole bank."""
        z = F.normalize((features - self.mean) / self.scale, dim=1)
        rows = max(1, BANK_CELLS // len(self.bank))
        return torch.cat([self._votes(part) for part in z.split(rows)]).clamp_(min=FLOOR).log_()

    def _votes(self, z: Tensor) -> Tensor:
        near, index = (z @ self.bank.T).topk(min(self.neighbours, len(self.bank)), dim=1)
        weights = torch.softmax(near / self.temperature, dim=1)
        return torch.einsum("nk,nkc->nc", weights, self.targets[index])

    def to_bytes(self) -> bytes:
        numbers = torch.tensor([self.neighbours, self.temperature], dtype=torch.float64)
        named = {"bank": self.bank, "targets": self.targets, "mean": self.mean, "scale": self.scale}
        return save({**{name: tensor.contiguous() for name, tensor in named.items()}, "numbers": numbers})


AnyHead: TypeAlias = LinearHead | NeighbourHead


def read_head(data: bytes) -> AnyHead:
    """The head of a file that `to_bytes` made."""
    tensors = load(data)
    if "weight" in tensors:
        return LinearHead(tensors["weight"], tensors["bias"])
    neighbours, temperature = tensors.pop("numbers").tolist()
    return NeighbourHead(**tensors, neighbours=int(neighbours), temperature=temperature)


def unscaled(weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> LinearHead:
    """The linear head on z = (x - mean) / scale as one on x: `weight` (C, D), `bias` (C,), `mean` and `scale` (D,)."""
    weight, bias, mean, scale = (one.double() for one in (weight, bias, mean, scale))
    own = weight / scale
    return LinearHead(own.float(), (bias - own @ mean).float())
