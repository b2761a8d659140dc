"""The seam of `fit`: what is trained, on which views, by which losses. The loop around it is written once.

An objective owns its modules, its optimisers and the views it wants of each stream. A new one needs no edit of the
engine: `fit.objective` names it as `"my_package.my_module:MyObjective"`, or a decorated class by its registered name.
"""

import difflib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.fit.batch import Batch
from engine.fit.precision import Precision
from engine.images.crops import RandomCrop
from engine.models.checkpoint import LoadReport
from engine.settings.block import Block, SettingsError, parse
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.names import OBJECTIVES

Arguments = TypeVar("Arguments", bound=Block)


@dataclass(frozen=True)
class Context:
    """What the loop's surroundings give to an objective. `init` is a model folder whose weights the model starts
    from.
    """

    device: torch.device
    settings: FitSettings
    model: ModelSettings
    class_names: tuple[str, ...]
    rank: int = 0
    world: int = 1
    init: Path | None = None
    precision: Precision = "fp32"
    targets: Mapping[str, str] = field(default_factory=dict)
    """What each stream's targets are (`labels.tables.Kind`), where they are not distributions."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def distribute(self, module: nn.Module, **options: Any) -> nn.Module:
        """`module` with gradients averaged over all workers (DDP with `options`); `module` itself when there is one
        worker.
        """
        if self.world == 1:
            return module
        return DistributedDataParallel(
            module, device_ids=[self.device] if self.device.type == "cuda" else None, **options
        )

    def arguments(self, kind: type[Arguments]) -> Arguments:
        """`fit.objective_args` as a typed block. Raises SettingsError for what `kind` does not know."""
        return parse(kind, self.settings.objective_args, f"objective_args of {self.settings.objective}")


class Stateful(Protocol):
    """A module, an optimiser, or anything else whose state travels in checkpoints."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Objective(ABC):
    """One way of learning from named streams.

    A subclass fills `parts` with everything that has state (any number of modules and optimisers; scalars as buffers of
    a module), unwrapped by `Context.distribute`, and the checkpoint follows. Parts are equal on all ranks, or such that
    rank 0's serve all, for only rank 0's are saved.
    """

    ignores: ClassVar[tuple[str, ...]] = ()
    """Settings of a fit that this objective has no use for: setting one is an error."""

    @classmethod
    def images_per_step(cls, settings: FitSettings) -> float:
        """Images that a step takes forward and backward, every view counted; one that goes forward alone is a third."""
        return sum(settings.batch.values())

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parts: dict[str, Any] = {}
        self.loaded: LoadReport | None = None
        """What the initial weights filled, where there are any."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the exported model tells apart: the run's classes, unless the objective has classes of its own, or none."""
        return self.context.class_names

    def crops(self, stream: str) -> tuple[RandomCrop, ...]:  # noqa: ARG002
        """Random crops taken of every image of `stream` while it is decoded, a tensor of `Batch.crops` each; none by default: then images are
        decoded as evaluation does, the shorter side resized and the centre cropped.
        """
        return ()

    @abstractmethod
    def step(self, batches: Mapping[str, Batch], step: int) -> Mapping[str, Tensor | float]:
        """Learn from one batch a stream: forward, backward, optimiser, EMA. Returns metrics, `loss` among them.

        Tensors (0-d, detached) stay on the device and are averaged until the next log; floats are logged as they last
        stood. All ranks return the same keys.
        """

    @abstractmethod
    def export(self) -> nn.Module:
        """The module whose weights are the outcome: the averaged one where there is an average."""

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """State of every part: tensors and plain values only, so that it loads with `torch.load(weights_only=True)`."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: Mapping[str, dict[str, Any]]) -> None:
        """Undo `state_dict`. Raises ValueError when the state is of other parts."""
        if state.keys() != self.parts.keys():
            raise ValueError(
                f"the checkpoint holds {sorted(state)}, but this objective has {sorted(self.parts)}: "
                "it was made by another objective"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


Kind = TypeVar("Kind", bound=type[Objective])


def register_objective(name: str) -> Callable[[Kind], Kind]:
    """Class decorator: make an objective known as `name`."""

    def register(kind: Kind) -> Kind:
        if name in OBJECTIVES:
            raise ValueError(f"an objective named {name!r} is registered already")
        OBJECTIVES[name] = kind
        return kind

    return register


def create_objective(context: Context) -> Objective:
    """The objective that `context.settings` names, built. Raises SettingsError when there is none of that name, and for a setting
    that it has no use for.
    """
    kind = find_objective(context.settings.objective)
    check_settings(context.settings, kind)
    return kind(context)


def check_settings(settings: FitSettings, kind: type[Objective]) -> None:
    """Raise SettingsError for a setting that the objective `kind` has no use for."""
    for setting in kind.ignores:
        usual = FitSettings.model_fields[setting].get_default(call_default_factory=True)
        if getattr(settings, setting) != usual:
            raise SettingsError(f"objective {settings.objective} has no use for {setting}: leave it out")


def find_objective(name: str) -> type[Objective]:
    """The objective registered as `name`, or written 'package.module:Class'. Raises SettingsError when there is none."""
    found = OBJECTIVES.get(name, name)
    return _import(found) if isinstance(found, str) else found


def _import(path: str) -> type[Objective]:
    module, separator, attribute = path.partition(":")
    if not separator:
        close = difflib.get_close_matches(path, OBJECTIVES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(OBJECTIVES))}"
        raise SettingsError(f"objective {path!r} is unknown; {hint} Your own is written 'package.module:Class'.")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"objective {path!r} cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise SettingsError(f"objective {path!r} is not a subclass of engine.fit.objective.Objective")
    return kind
