"""The names that settings may give: losses, objectives, streams, corruptions, tasks and networks are looked up while settings are read.

Rooms above import these lists or are tested to agree with them (`tests/settings/test_names.py`).
"""

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

LOSSES = ("soft_ce", "kl", "tempered_ce", "mse", "mse_logits", "mse_outputs", "bce", "focal", "quality_focal")
STREAMS = ("labelled", "pseudo", "soft", "pool", "tags")
TASKS = ("classify", "multilabel", "segment")
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
OBJECTIVES: dict[str, Any] = {
    "supervised": "engine.fit.supervised:Supervised",
    "segmentation": "engine.fit.segmentation:Segmentation",
    "rotation": "engine.fit.rotation:Rotation",
    "patches": "engine.fit.patches:Patches",
    "inpainting": "engine.fit.restoration:Inpainting",
    "colourisation": "engine.fit.restoration:Colourisation",
    "two_views": "engine.fit.two_views:TwoViews",
    "fixmatch": "engine.fit.weak_strong:FixMatch",
    "uda": "engine.fit.weak_strong:UDA",
    "meta_pseudo_labels": "engine.fit.meta_pseudo_labels:MetaPseudoLabels",
}
"""Objectives by name, as classes or as 'module:Class', imported when first asked for."""
OWN_NETWORKS = ("resnet8_cifar", "wrn_28_2")
"""Networks of `engine/models/cifar.py`."""


def check_name(kind: str, name: str, known: Collection[str]) -> str:
    """`name`, when it is known. Raises ValueError with the nearest known one."""
    if name in known:
        return name
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    raise ValueError(f"{kind} {name!r} is unknown; {hint}")


LONGEST_NAME = 120
"""Characters of the name of a run, step, trial or submission: with what is appended to them they stay below the 255 bytes of a file's name."""


def check_file_name(kind: str, name: str, blanks: bool = False) -> str:
    """`name`, when it can be one file or folder in every store. Raises ValueError for a path, `..`, blanks unless allowed, and whatever else could
    lead outside its folder, hide, or not be printed."""
    allowed = "letters, digits, '.', '_', '-'" + " and blanks" * blanks
    if len(name) > LONGEST_NAME:
        raise ValueError(f"{kind} {name[:20]!r}… has {len(name)} characters, at most {LONGEST_NAME}: shorten it")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._ -]*" if blanks else r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        hint = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
        raise ValueError(
            f"{kind} {name!r} is no name: use {allowed}, a letter or digit first" + (f", e.g. {hint}" if hint else "")
        )
    return name


def _check_run(name: str) -> str:
    return check_file_name("run", name)


RunName = Annotated[str, AfterValidator(_check_run)]
"""The name of a run: a folder below STORE/runs/."""


def check_or_class(kind: str, name: str, known: Collection[str]) -> str:
    """As `check_name`; a class of one's own, written 'package.module:Class', passes."""
    module, separator, attribute = name.partition(":")
    if separator and attribute.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return name
    try:
        return check_name(kind, name, known)
    except ValueError as error:
        raise ValueError(f"{error} Your own is written 'package.module:Class'.") from None


def check_network(name: str) -> str:
    """`name`, when timm or this engine has the architecture and the tag ("resnet50", "resnet50.a1_in1k"). Raises ValueError."""
    import timm  # takes seconds: only where a network is named

    if ":" in name or "/" in name:
        raise ValueError(
            f"model {name!r} is a location, not an architecture. Use a name of timm, e.g. resnet50 or resnet50.a1_in1k."
        )
    architecture, _, tag = name.partition(".")
    if name in OWN_NETWORKS:
        return name
    if not timm.is_model(architecture):
        known = [*timm.list_models(), *OWN_NETWORKS]
        raise ValueError(f"model {name!r} is unknown to timm {timm.__version__}; {_nearest(architecture, known)}")
    tagged = timm.list_models(f"{architecture}.*", include_tags=True)
    if tag and name not in tagged:
        raise ValueError(f"model {name!r}: {architecture} has no weights of that tag; {_nearest(name, tagged)}")
    return name


def check_optimiser(name: str) -> str:
    """`name`, when timm has the optimiser, alone or inside Lookahead ("lookahead_radam" is Ranger). Raises ValueError."""
    if name in ("sgd", "adamw"):
        return name
    from timm.optim import list_optimizers  # takes seconds: only where one is named

    known = list_optimizers()
    if name.removeprefix("lookahead_") not in known:
        raise ValueError(f"optimiser {name!r} is unknown to timm; {_nearest(name, list(known))}")
    return name


def repeated(names: Sequence[Any]) -> list[Any]:
    """The values that occur more than once in `names`, each once."""
    return [one for at, one in enumerate(names) if one in names[:at] and one not in names[at + 1 :]]


def texts(value: Any) -> Iterator[str]:
    """Every text in a plain tree, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from texts(key)
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def numbers(value: Any) -> Iterator[bool | int | float]:
    """Every number and truth value in a plain tree."""
    if isinstance(value, bool | int | float):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists all names"
