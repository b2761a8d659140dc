"""A model folder in timm's hub layout: `config.json` and `model.safetensors`.

`timm.create_model("local-dir:FOLDER", pretrained=True)` loads it too. Pickles are never read. In addition to the keys that timm reads, the `engine`
block of the config holds the settings of the model and the hash of its classes. Equal models give identical files.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from timm.models import split_model_name_tag
from torch import Tensor, nn

from engine.ground import storage
from engine.ground.progress import log_event
from engine.images.decode import Frame
from engine.labels.classes import ClassList
from engine.models.build import build_model, normalisation
from engine.models.unet import UNet
from engine.settings.model import ModelSettings
from engine.settings.trust import UNPICKLED

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HARDLY = 0.5
"""Share of a network's weights, without its classifier, that initial weights must fill."""


@dataclass(frozen=True)
class Loaded:
    """A model in eval mode, the frame that it sees of a picture, and its normalisation (mean and std of pixels in 0..1)."""

    model: nn.Module
    class_names: list[str]
    frame: Frame
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    settings: ModelSettings

    @property
    def img_size(self) -> int:
        """Side of the model's input in pixels."""
        return self.frame.img_size


class Description(NamedTuple):
    """The contents of `config.json`."""

    settings: ModelSettings
    class_names: list[str]
    crop_pct: float
    interpolation: str


@dataclass(frozen=True)
class LoadReport:
    """Names of the tensors of the model that were loaded, that the weights lack, of extra tensors, and of tensors with another shape or for other
    classes."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors loaded"]
        for names, what in (
            (self.missing, "missing in the file"),
            (self.unexpected, "not in this model"),
            (self.mismatched, "of another shape or of other classes"),
        ):
            if names:
                parts.append(f"{len(names)} {what} ({_shown(names)})")
        return ", ".join(parts)


def save(
    folder: Path,
    model: nn.Module | Mapping[str, Tensor],
    settings: ModelSettings,
    class_names: list[str],
    extra: dict[str, Any] | None = None,
) -> None:
    """Write `model`, built from `settings`, or its state dict. `extra`: additional provenance for the `engine` block.

    Raises ValueError for a model whose weights are not all finite: it would answer the first class for every image.
    """
    network = model if isinstance(model, nn.Module) else _rebuild(settings, len(class_names))
    weights = model.state_dict() if isinstance(model, nn.Module) else model
    mean, std, crop_pct, interpolation = normalisation(settings, network)
    origin: dict[str, Any] = getattr(network, "pretrained_cfg", {})
    architecture = split_model_name_tag(settings.model)[0]
    fixed = bool(origin.get("fixed_input_size"))
    config = {
        "architecture": architecture,
        "num_classes": len(class_names),
        "num_features": network.num_features,
        "label_names": class_names,
        "model_args": {**settings.model_args, **({"img_size": settings.img_size} if fixed else {})},
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, settings.img_size, settings.img_size],
            **({"test_input_size": [3, test, test]} if (test := settings.test_img_size) else {}),
            "fixed_input_size": fixed,
            "interpolation": interpolation,
            "crop_pct": crop_pct,
            "mean": mean,
            "std": std,
            "num_classes": len(class_names),
            "pool_size": None,
            "first_conv": origin.get("first_conv"),
            "classifier": origin.get("classifier"),
        },
        "engine": {
            "model_settings": settings.model_dump(mode="json"),
            **({"classes_hash": ClassList(tuple(class_names)).hash} if class_names else {}),
            **(extra or {}),
        },
    }
    tensors = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    if names := _not_finite(tensors):
        raise ValueError(
            f"model {settings.model}: {len(names)} of {len(tensors)} tensors are not finite ({_shown(names)}), so it is not saved."
            " Lower fit.lr, raise fit.warmup_steps, or set fit.clip_grad: 1."
        )
    fs, root = storage.resolve(str(folder))
    storage.put(fs, f"{root}/{WEIGHTS}", to_safetensors(tensors, metadata={"format": "pt"}))
    storage.put(fs, f"{root}/{CONFIG}", json.dumps(config, indent=2).encode())


def load(folder: Path) -> Loaded:
    """The model of a folder, written by this engine or by timm with label names.

    Raises ValueError naming the file that is missing, unreadable or does not fit, and the remedy.
    """
    described = describe(folder)
    weights = _read_weights(folder)
    model = _rebuild(described.settings, len(described.class_names))
    report = _compare(model, weights)
    if report.missing or report.unexpected or report.mismatched:
        raise ValueError(
            f"{folder / WEIGHTS} does not fit the {described.settings.model} of {CONFIG}: {report}. "
            "The two files are of different models. Copy both from the same model folder."
        )
    model.load_state_dict(weights)
    settings = described.settings
    mean, std, _, _ = normalisation(settings, model)
    return Loaded(
        model=model.eval(),
        class_names=described.class_names,
        frame=Frame(settings.test_img_size or settings.img_size, described.crop_pct, described.interpolation),
        mean=mean,
        std=std,
        settings=settings,
    )


def check_weights(folder: Path) -> None:
    """Raise ValueError unless the folder can be started from: one of this engine, or of timm, whose classes need no names."""
    if (Path(folder) / CONFIG).exists() and _names(folder) is None:
        read_config(folder)
        _read_weights(folder)
    else:
        load(folder)


def class_names(folder: Path) -> list[str]:
    """The class names of a model folder in index order, without reading its weights."""
    return describe(folder).class_names


def initialise(model: nn.Module, folder: Path, class_names: Sequence[str] | None = None) -> LoadReport:
    """Load the weights of a folder into `model`: every tensor of the same name and shape; the others keep their values.

    The classifier keeps its values when its shape differs, or when the classes of the folder are not, or not known to be, `class_names`.
    Position embeddings of another image size are resized as timm does. Raises ValueError when less than HARDLY of the other weights fits.
    """
    weights = _read_weights(folder)
    if isinstance(model, UNet) and not any(name.startswith("encoder.") for name in weights):
        model = model.encoder  # weights of the network without a decoder
    report = _compare(model, weights)
    if report.mismatched:
        weights = _resized(model, weights, report.mismatched)
        report = _compare(model, weights)
    if class_names is not None and (Path(folder) / CONFIG).exists() and _names(folder) != list(class_names):
        heads = _heads(model)
        others = [name for name in report.matched if name.startswith(heads)]
        matched = [name for name in report.matched if name not in others]
        report = replace(report, matched=matched, mismatched=[*report.mismatched, *others])
    own, heads = model.state_dict(), _heads(model)
    sizes = {name: tensor.numel() for name, tensor in own.items() if not (heads and name.startswith(heads))}
    share = sum(sizes.get(name, 0) for name in report.matched) / max(1, sum(sizes.values()))
    if share < HARDLY:
        raise ValueError(
            f"{folder / WEIGHTS} does not fit this model, of whose weights it has {share:.0%}: {report}. Use weights of the same architecture."
        )
    model.load_state_dict({name: weights[name] for name in report.matched}, strict=False)
    return report


def _resized(model: nn.Module, weights: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    """The weights with those of `names` in the shapes of `model` that timm's own conversion for the architecture can bring there: position embeddings
    and tables of relative positions of another image size.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    heads, own = _heads(model), model.state_dict()
    wanted = [name for name in names if not (heads and name.startswith(heads))]
    if convert is None or not wanted:
        return weights
    try:
        converted = convert(dict(weights), model)
    except (
        RuntimeError,
        KeyError,
        AttributeError,
        AssertionError,
    ) as error:  # weights of another architecture, which are told below
        log_event(
            "init", f"{type(model).__name__}: {len(wanted)} tensors of other shapes could not be resized ({error})"
        )
        return weights
    fitting = {
        name: converted[name] for name in wanted if name in converted and converted[name].shape == own[name].shape
    }
    return {**weights, **fitting}


def _names(folder: Path) -> list[str] | None:
    """The label names of a folder; None without label names."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text())
        return config["label_names"] if config.get("label_names") is not None else config.get("labels")
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _heads(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the names of the tensors of the classifier."""
    named = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))


def describe(folder: Path) -> Description:
    """The contents of `config.json` of a folder. Raises ValueError like `load`, for a folder without label names, too."""
    names, described = _names(folder), read_config(folder)
    if names is None:
        raise ValueError(
            f"{Path(folder) / CONFIG}: no label_names, so what its classes are is unknown. Add them in index order; to start training from its"
            " weights (init) they are not needed."
        )
    return described


def read_config(folder: Path) -> Description:
    """The contents of `config.json` of a folder, which may be timm's own: without label names its classes are numbered. Raises ValueError like
    `load`."""
    file = Path(folder) / CONFIG
    try:
        config = json.loads(file.read_text())
        names = _names(folder)
        names = [str(number) for number in range(config["num_classes"])] if names is None else names
        origin = config["pretrained_cfg"]
        if len(names) != config["num_classes"]:
            raise ValueError(
                f"{file}: {len(names)} label_names for num_classes {config['num_classes']}. Correct one of them."
            )
        ours = config.get("engine", {}).get("model_settings")
        args = {
            name: value
            for name, value in config.get("model_args", {}).items()
            if name not in ("img_size", "num_classes", "in_chans")
        }
        settings = ModelSettings.model_validate(ours or {"model": config["architecture"], "model_args": args})
        # the weights are those of the folder; nothing else that a config names is ever loaded
        kept = {name: value for name, value in settings.model_args.items() if name not in UNPICKLED}
        update = {
            "pretrained": False,
            "model_args": kept,
            "img_size": origin["input_size"][-1],
            "mean": tuple(origin["mean"]),
            "std": tuple(origin["std"]),
        }
        return Description(settings.model_copy(update=update), list(names), origin["crop_pct"], origin["interpolation"])
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(_missing(file)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not valid JSON ({error}). Copy the folder again, or fit the model again.") from None
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise ValueError(f"{file}: not a model description in timm's hub layout with label names ({error!r})") from None


def _rebuild(settings: ModelSettings, num_classes: int) -> nn.Module:
    """The network without timm's weights; the global random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        return build_model(settings.model_copy(update={"pretrained": False}), num_classes)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    file = Path(folder) / WEIGHTS
    try:
        weights = load_file(file)
    except FileNotFoundError:
        raise ValueError(_missing(file)) from None
    except SafetensorError as error:
        raise ValueError(
            f"{file}: not a readable safetensors file, perhaps truncated ({error}). Copy it again, or fit the model again."
        ) from None
    if names := _not_finite(weights):
        raise ValueError(
            f"{file}: {len(names)} tensors are not finite ({_shown(names)}): the model answers the first class. Fit it again."
        )
    return weights


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without shared memory, which safetensors refuses: a weight that has two names is written twice."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return apart


def _not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity."""
    return [name for name, tensor in weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]


def _missing(file: Path) -> str:
    return f"{file}: no such file. A model folder holds {CONFIG} and {WEIGHTS}, as `fit` writes them."


def _compare(model: nn.Module, weights: Mapping[str, Tensor]) -> LoadReport:
    """Which of `weights` fit the model by name and shape."""
    own = model.state_dict()
    common = [name for name in own if name in weights]
    fitting = {name for name in common if own[name].shape == weights[name].shape}
    return LoadReport(
        matched=[name for name in common if name in fitting],
        missing=[name for name in own if name not in weights],
        unexpected=[name for name in weights if name not in own],
        mismatched=[name for name in common if name not in fitting],
    )


def _shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
