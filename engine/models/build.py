"""From settings to a network: any of timm's architectures by name, regularised as asked or refused."""

import difflib
from typing import Any, NamedTuple

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import DropPath
from timm.models import get_pretrained_cfg
from torch import nn

from engine.ground.progress import log_event
from engine.models import cifar as _registers_networks  # noqa: F401
from engine.settings.model import ModelSettings

OWN_SETTINGS = {
    "num_classes": "the class list decides it",
    "in_chans": "images are decoded to RGB",
    "pretrained": "use the setting pretrained",
    "img_size": "use the setting img_size",
    "drop_rate": "use the setting drop",
    "drop_path_rate": "use the setting drop_path",
}
"""Arguments of timm.create_model that the engine gives itself."""


class Normalisation(NamedTuple):
    """How a model wants its images: mean and std of pixels in 0..1, and timm's recipe for decoding to evaluate."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    interpolation: str


def build_model(settings: ModelSettings, num_classes: int, in_chans: int = 3) -> nn.Module:
    """The network that `settings` describe, freshly initialised, or with timm's weights where they say `pretrained`.

    Raises ValueError for an unknown name, an argument that the architecture does not take, and regularisation that it
    would ignore.
    """
    _check_name(settings.model)
    if taken := settings.model_args.keys() & OWN_SETTINGS.keys():
        raise ValueError("; ".join(f"model_args.{name}: {OWN_SETTINGS[name]} instead" for name in sorted(taken)))
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, **settings.model_args}
    if get_pretrained_cfg(settings.model).fixed_input_size:
        arguments["img_size"] = settings.img_size
    if settings.drop:
        arguments["drop_rate"] = settings.drop
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    try:
        model = timm.create_model(settings.model, pretrained=settings.pretrained, **arguments)
    except TypeError as error:
        raise ValueError(_refusal(settings, str(error))) from error
    except (AssertionError, RuntimeError) as error:
        wanted = settings.model_dump(exclude_defaults=True, exclude={"model"})
        raise ValueError(f"model {settings.model} cannot be built with {wanted}: {error}") from error
    for name, rate, acts in (("drop", settings.drop, _drops), ("drop_path", settings.drop_path, _drops_paths)):
        if rate and not any(acts(module, rate) for module in model.modules()):
            raise ValueError(_no_such_noise(settings.model, name, rate))
    return model


def normalisation(settings: ModelSettings, model: nn.Module) -> Normalisation:
    """What the settings say of mean and std, and for the rest what timm says of the architecture."""
    config = resolve_model_data_config(model)
    return Normalisation(
        mean=settings.mean or tuple(config["mean"]),
        std=settings.std or tuple(config["std"]),
        crop_pct=config["crop_pct"],
        interpolation=config["interpolation"],
    )


def num_parameters(settings: ModelSettings, num_classes: int) -> int:
    """Weights of the network that `settings` describe, counted without making any."""
    with torch.device("meta"):
        model = build_model(settings.model_copy(update={"pretrained": False}), num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def warn_if_smaller(teacher: ModelSettings, student: ModelSettings, num_classes: int) -> bool:
    """Whether the student is smaller than its teacher, which is said: Noisy Student is for equal or larger ones, smaller ones are distillation."""
    if (teacher.model, teacher.model_args) == (student.model, student.model_args):
        return False
    sizes = [num_parameters(one, num_classes) for one in (teacher, student)]
    if sizes[1] < sizes[0]:
        log_event(
            "student",
            f"{sizes[1]:,} weights are fewer than its teacher's {sizes[0]:,}: an equal or larger student can go beyond its teacher",
        )
    return sizes[1] < sizes[0]


def _check_name(name: str) -> None:
    """Raise ValueError unless timm knows architecture and tag of `name` ("resnet50", "resnet50.a1_in1k")."""
    if ":" in name or "/" in name:
        raise ValueError(
            f"model {name!r} is a place, not an architecture: name one of timm's, e.g. resnet50 or resnet50.a1_in1k"
        )
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(
            f"model {name!r} is unknown to timm {timm.__version__}; {_nearest(architecture, timm.list_models())}"
        )
    tagged = timm.list_models(f"{architecture}.*", include_tags=True)
    if tag and name not in tagged:
        raise ValueError(f"model {name!r}: {architecture} has no weights of that tag; {_nearest(name, tagged)}")


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "timm.list_models() shows those there are"


def _refusal(settings: ModelSettings, message: str) -> str:
    """What a constructor's TypeError means in the words of the settings."""
    if "'drop_rate'" in message:
        return _no_such_noise(settings.model, "drop", settings.drop)
    if "'drop_path_rate'" in message:
        return _no_such_noise(settings.model, "drop_path", settings.drop_path)
    return f"model {settings.model} cannot be built with model_args {settings.model_args}: {message}"


def _no_such_noise(model: str, name: str, rate: float) -> str:
    return (
        f"model {model} has no {name}, so {name}={rate} would do nothing: choose another architecture, or set {name}=0"
    )


def _drops(module: nn.Module, rate: float) -> bool:
    return getattr(module, "drop_rate", None) == rate or (isinstance(module, nn.Dropout) and module.p == rate)


def _drops_paths(module: nn.Module, rate: float) -> bool:
    return isinstance(module, DropPath) and 0 < module.drop_prob <= rate
