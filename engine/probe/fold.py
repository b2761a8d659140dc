"""A backbone and a linear head as one network: a hub folder that timm loads like any other."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.models.build import build_model
from engine.models.checkpoint import load, save
from engine.probe.heads import LinearHead


def save_folded(
    folder: Path, backbone: Path, head: LinearHead, class_names: list[str], extra: dict[str, Any]
) -> nn.Module:
    """Write the network of the model folder `backbone` with `head` as its classifier; returns it.

    Raises ValueError for an architecture whose classifier is not one linear layer.
    """
    loaded = load(backbone)
    with torch.random.fork_rng(devices=[]):
        network = build_model(loaded.settings, len(class_names)).eval()
    classifier = classifier_of(network, loaded.settings.model, head)
    left = network.load_state_dict(loaded.model.state_dict(), strict=False)
    own = {
        f"{name}.{one}"
        for name, module in network.named_modules()
        if module is classifier
        for one in ("weight", "bias")
    }
    if left.unexpected_keys or not set(left.missing_keys) <= own:
        raise ValueError(
            f"{loaded.settings.model}: its classifier has more layers than a linear head can fill ({', '.join(left.missing_keys[:5])})."
            " Use another architecture."
        )
    with torch.no_grad():
        classifier.weight.copy_(head.weight)
        classifier.bias.copy_(head.bias)
    save(folder, network, loaded.settings, class_names, extra)
    return network


def classifier_of(network: nn.Module, name: str, head: LinearHead) -> nn.Linear:
    """The classifier of a network that `head` fits into. Raises ValueError where there is none."""
    find = getattr(network, "get_classifier", None)
    classifier = find() if find is not None else None
    if not isinstance(classifier, nn.Linear) or classifier.bias is None or classifier.weight.shape != head.weight.shape:
        raise ValueError(
            f"{name}: a head on its features cannot be saved as its classifier, which is {classifier!r}: it has to be one linear layer with a bias."
            " Use another architecture, or recipe.head.kind=knn, whose head is a file of its own."
        )
    return classifier
