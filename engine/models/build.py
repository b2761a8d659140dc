"""Build a network from settings: any timm architecture by name, with its regularisation checked."""

from typing import Any, NamedTuple

import timm
import torch
from timm.data import resolve_model_data_config
from timm.layers import DropPath
from timm.models import get_pretrained_cfg
from torch import nn

from engine.ground.progress import log_event
from engine.images.decode import Frame
from engine.models import cifar as _registers_networks  # noqa: F401
from engine.models.unet import PixelClassifier
from engine.settings.model import ModelSettings
from engine.settings.names import check_network

OWN_SETTINGS = {
    "num_classes": "the class list decides it",
    "in_chans": "images are decoded to RGB",
    "pretrained": "use the setting pretrained",
    "img_size": "use the setting img_size",
    "drop_rate": "use the setting drop",
    "drop_path_rate": "use the setting drop_path",
}
"""Arguments of timm.create_model that the engine sets itself."""


class Normalisation(NamedTuple):
    """Preprocessing of a model: mean and std of pixels in 0..1, and crop and interpolation for evaluation, as in timm."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop_pct: float
    interpolation: str


def build_model(settings: ModelSettings, num_classes: int, in_chans: int = 3) -> nn.Module:
    """The network of `settings`, randomly initialised, or with timm's weights if `settings.pretrained`: logits (B, C) of images, or with a
    decoder (B, C, H, W) of their pixels.

    Raises ValueError for an unknown name, an argument that the architecture does not accept, and regularisation that it
    would ignore.
    """
    check_network(settings.model)
    if taken := settings.model_args.keys() & OWN_SETTINGS.keys():
        raise ValueError("; ".join(f"model_args.{name}: {OWN_SETTINGS[name]} instead" for name in sorted(taken)))
    of_pixels = settings.decoder is not None and num_classes > 0
    arguments: dict[str, Any] = {
        "num_classes": 0 if of_pixels else num_classes,
        "in_chans": in_chans,
        **settings.model_args,
    }
    if settings.test_img_size is not None and has_fixed_size(settings.model):
        raise ValueError(
            f"model {settings.model} is built for one image size: leave test_img_size out, or finetune at that img_size"
        )
    if get_pretrained_cfg(settings.model).fixed_input_size:
        arguments["img_size"] = settings.img_size
    if settings.drop:
        arguments["drop_rate"] = settings.drop
    if settings.drop_path:
        arguments["drop_path_rate"] = settings.drop_path
    try:
        model = timm.create_model(settings.model, pretrained=settings.pretrained, **arguments)
    except TypeError as error:
        raise ValueError(_type_error_message(settings, str(error))) from error
    except (AssertionError, RuntimeError) as error:
        wanted = settings.model_dump(exclude_defaults=True, exclude={"model"})
        raise ValueError(f"model {settings.model} cannot be built with {wanted}: {error}") from error
    for name, rate, acts in (("drop", settings.drop, _drops), ("drop_path", settings.drop_path, _drops_paths)):
        if rate and not any(acts(module, rate) for module in model.modules()):
            raise ValueError(_unsupported_message(settings.model, name, rate))
    return PixelClassifier(model, num_classes, settings.decoder_width) if of_pixels else model


def normalisation(settings: ModelSettings, model: nn.Module) -> Normalisation:
    """Mean, std and crop of the settings if given; everything else from the timm configuration of the architecture."""
    config = resolve_model_data_config(model)
    return Normalisation(
        mean=settings.mean or tuple(config["mean"]),
        std=settings.std or tuple(config["std"]),
        crop_pct=settings.crop_pct or config["crop_pct"],
        interpolation=config["interpolation"],
    )


def train_frame(settings: ModelSettings) -> Frame:
    """What training shows of a picture where it does not crop at random: as evaluation does at `img_size`, without building the network."""
    check_network(settings.model)
    usual = get_pretrained_cfg(settings.model)
    crop_pct = settings.crop_pct or (1.0 if settings.decoder is not None else usual.crop_pct)
    return Frame(settings.img_size, crop_pct, usual.interpolation)


def has_fixed_size(name: str) -> bool:
    """Whether a network of this name is built for one image size, so that some of its weights depend on it."""
    check_network(name)
    return bool(get_pretrained_cfg(name).fixed_input_size)


def usual_statistics(settings: ModelSettings) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std that the pixels of the network of `settings` are normalised with, without building it."""
    check_network(settings.model)
    usual = get_pretrained_cfg(settings.model)
    return settings.mean or tuple(usual.mean), settings.std or tuple(usual.std)


def with_statistics(settings: ModelSettings, folder: ModelSettings) -> ModelSettings:
    """`settings` with the mean and std of the model folder that the weights come from, unless the settings have their own.

    Weights learn from pixels as they were normalised; the architecture's usual statistics may be others.
    """
    usual = usual_statistics(settings)
    wanted = (settings.mean or folder.mean, settings.std or folder.std)
    if (settings.mean and settings.mean != folder.mean) or (settings.std and settings.std != folder.std):
        log_event(
            "init",
            f"its weights saw mean={folder.mean}, std={folder.std}; the settings have mean={wanted[0]}, std={wanted[1]}",
        )
    if wanted == usual:
        return settings
    return settings.model_copy(update={"mean": wanted[0], "std": wanted[1]})


def num_parameters(settings: ModelSettings, num_classes: int) -> int:
    """Number of parameters of the network of `settings`, counted on the meta device."""
    with torch.device("meta"):
        model = build_model(settings.model_copy(update={"pretrained": False}), num_classes)
    return sum(parameter.numel() for parameter in model.parameters())


def warn_if_smaller(teacher: ModelSettings, student: ModelSettings, num_classes: int) -> bool:
    """Log a warning if the student is smaller than its teacher, and return whether it is: Noisy Student needs an equal or larger student."""
    if (teacher.model, teacher.model_args) == (student.model, student.model_args):
        return False
    sizes = [num_parameters(one, num_classes) for one in (teacher, student)]
    if sizes[1] < sizes[0]:
        log_event(
            "student",
            f"{sizes[1]:,} parameters, fewer than its teacher's {sizes[0]:,}: only an equal or larger student can be expected to surpass its teacher",
        )
    return sizes[1] < sizes[0]


def _type_error_message(settings: ModelSettings, message: str) -> str:
    """The message for a TypeError of a constructor, in terms of the settings."""
    if "'drop_rate'" in message:
        return _unsupported_message(settings.model, "drop", settings.drop)
    if "'drop_path_rate'" in message:
        return _unsupported_message(settings.model, "drop_path", settings.drop_path)
    return f"model {settings.model} cannot be built with model_args {settings.model_args}: {message}"


def _unsupported_message(model: str, name: str, rate: float) -> str:
    return f"model {model} has no {name}, so {name}={rate} would have no effect. Choose another architecture, or set {name}=0."


def _drops(module: nn.Module, rate: float) -> bool:
    return getattr(module, "drop_rate", None) == rate or (isinstance(module, nn.Dropout) and module.p == rate)


def _drops_paths(module: nn.Module, rate: float) -> bool:
    return isinstance(module, DropPath) and 0 < module.drop_prob <= rate
