"""A network that learns: initial weights, optimiser, precision, average, gradients averaged over workers, a body that stays frozen at first.

An objective has one for every network that it trains.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.fit.lr_schedule import learning_rate
from engine.fit.objective import Context
from engine.fit.optimisers import optimiser, set_rate
from engine.models.build import build_model
from engine.models.checkpoint import LoadReport, initialise
from engine.models.ema import make_average
from engine.settings.fit import FitSettings


def make_network(
    context: Context, class_names: tuple[str, ...], seed_offset: int = 0
) -> tuple[nn.Module, LoadReport | None]:
    """The model of the settings for these classes, and what of it the initial weights filled where there are any.

    Every rank draws the same random weights, and the same ones after a restart; another `seed_offset` draws others.
    """
    torch.manual_seed(context.settings.seed + seed_offset)
    model = build_model(context.model, len(class_names))
    return model, None if context.init is None else initialise(model, context.init, class_names)


class Learner:
    """One network, its optimiser and, where the settings want it, the average of its weights.

    `settings`: those of the fit, or a copy with another rate. While `settings.freeze_steps` last only the classifier
    learns: the body has no gradients and stays in eval mode, so that its weights, its running statistics and what it
    answers are as they were. What `settings.freeze` names stays so to the end. `options`: those of `Context.distribute`.
    """

    def __init__(
        self, context: Context, model: nn.Module, settings: FitSettings | None = None, **options: object
    ) -> None:
        self.context, self.settings, self.options = context, settings or context.settings, options
        self.layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        self.model = model.to(context.device).to(memory_format=self.layout)
        self.optimiser = optimiser(self.model, self.settings)
        decay = self.settings.model_ema_decay
        self.average = make_average(self.model, decay) if self.settings.model_ema else None
        self.frozen = _frozen(self.model, self.settings.freeze)
        self.head: nn.Module | None = None  # what alone is learning, while the body is frozen
        if self.settings.freeze_steps:
            self.head = _classifier(self.model)
            self.model.requires_grad_(False)
            self.head.requires_grad_(True)
        self._keep_frozen()
        self.distributed = context.distribute(self.model, **self.options)

    def parts(self, name: str = "model") -> dict[str, object]:
        """What travels in checkpoints, under names that begin with `name` unless it is the one model."""
        prefix = "" if name == "model" else f"{name} "
        average = {} if self.average is None else {f"{prefix}average": self.average}
        return {name: self.model, f"{prefix}optimiser": self.optimiser, **average}

    def begin(self, step: int) -> None:
        """Be ready for `step`: train mode, all of it once the head has had its steps."""
        if self.head is not None and step >= self.settings.freeze_steps:
            self.head = None
            self.model.requires_grad_(True)
            self._keep_frozen()
            self.distributed = self.model  # the first wrapper goes, and with it its hooks on the head
            self.distributed = self.context.distribute(self.model, **self.options)
        self.distributed.train()
        if self.head is not None:
            self.model.eval()
            self.head.train()
        for module in self.frozen:
            module.eval()

    def _keep_frozen(self) -> None:
        for name, parameter in self.model.named_parameters():
            if _named(name, self.settings.freeze):
                parameter.requires_grad_(False)

    def __call__(self, images: Tensor) -> Tensor:
        """Outputs float32 for normalised images (B, 3, S, S), in the fit's precision."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.context.precision == "bf16"):
            return self.distributed(images.contiguous(memory_format=self.layout)).float()

    def update_weights(
        self, loss: Tensor, step: int, gradients: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor | float]:
        """One step of the optimiser down the gradient of `loss`, and of the average. Returns `lr` and, where gradients
        are clipped, `grad_norm`. `gradients` is filled with those that the optimiser is given, by weight.
        """
        metrics: dict[str, Tensor | float] = {}
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.clip_grad is not None:
            metrics["grad_norm"] = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad).detach()
        if gradients is not None:  # copies: some optimisers write into them
            named = self.model.named_parameters()
            gradients |= {name: weight.grad.clone() for name, weight in named if weight.grad is not None}
        metrics["lr"] = set_rate(self.optimiser, learning_rate(self.settings, step))
        self.optimiser.step()
        if self.average is not None:
            self.average.update(self.model, step + 1)
        return metrics

    def export(self) -> nn.Module:
        """The averaged weights where there is an average, else the model."""
        return self.model if self.average is None else self.average.module


def _named(name: str, names: list[str]) -> bool:
    """Whether a weight or module is one of `names`, or stands inside one."""
    return any(name == one or name.startswith(f"{one}.") for one in names)


def _frozen(model: nn.Module, names: list[str]) -> list[nn.Module]:
    """Modules that `names` name or that stand inside them. Raises ValueError for a name without a weight."""
    for name in names:
        if not any(_named(weight, [name]) for weight, _ in model.named_parameters()):
            known = ", ".join(child for child, _ in model.named_children())
            raise ValueError(
                f"freeze names {name!r}, but no weight of {type(model).__name__} is called or begins so; its parts are {known}"
            )
    return [module for name, module in model.named_modules() if name and _named(name, names)]


def _classifier(model: nn.Module) -> nn.Module:
    found = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    if not isinstance(found, nn.Module) or not any(True for _ in found.parameters()):
        raise ValueError(
            f"freeze_steps trains the classifier alone, but {type(model).__name__} has no single one: set freeze_steps=0"
        )
    return found


@contextmanager
def own_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block `model` is a function of its weights and the batch alone: no dropout, and batch norm by the
    batch's own statistics, which leave no trace in the running ones.
    """
    training = {module: module.training for module in model.modules()}
    norms = [module for module in training if isinstance(module, _BatchNorm) and module.track_running_stats]
    model.eval()
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for norm in norms:
            norm.track_running_stats = True
