"""Which backend labels: measured at the start on this model, size and device, checked against eager on real images, recorded in the step's plan."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.predict.backends import BACKENDS, Forward, Norm, Quantised, Shape, UnavailableError, build

TOLERANCE = 1e-4
"""Largest difference of an exact backend's logits from eager's, relative to the largest logit."""
MARGIN = 1.03
"""How much faster a backend has to be to displace an earlier, simpler one: less is noise."""
ROUNDS, BUDGET = 3, 10.0
"""Interleaved rounds, and the seconds after which no further round begins."""
COMPILE_FROM = 500_000
"""Images a worker has to label before `auto` tries a backend that takes long to build."""


@dataclass(frozen=True)
class Agreement:
    """How a backend's answers compare with eager's: max |logit difference| / max |logit|, and the share of images with the same best class."""

    logits: float
    top1: float
    images: int


@dataclass(frozen=True)
class BackendChoice:
    """What was chosen and why. `rates`: images a second of each candidate that ran; `unavailable`: reasons of those that did not."""

    name: str
    reason: str
    rates: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, Agreement] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What the step's plan keeps."""
        return asdict(self)

    def line(self) -> str:
        """One line for the log."""
        rates = ", ".join(
            f"{name} {rate:.0f}/s" for name, rate in sorted(self.rates.items(), key=lambda item: -item[1])
        )
        away = "".join(f"; {name} unavailable ({why})" for name, why in self.unavailable.items())
        agreed = self.agreement.get(self.name)
        same = (
            f"; logits within {agreed.logits:.1e} of eager's, top-1 {agreed.top1:.2%} of {agreed.images} images"
            if agreed
            else ""
        )
        return f"backend {self.name}: {self.reason} ({rates}){same}{away}"


def allowed_backends(backend: str, images_a_worker: int) -> list[str]:
    """Candidates for a setting: the named one, and for `auto` the exact ones that are worth building for so many images."""
    if backend != "auto":
        return [backend]
    return [
        one.name
        for one in BACKENDS.values()
        if not one.changes_answers and (not one.slow_build or images_a_worker >= COMPILE_FROM)
    ]


def agreement(logits: Tensor, reference: Tensor) -> Agreement:
    """logits, reference: float (N, C)."""
    scale = reference.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    difference = float((logits - reference).abs().max() / scale)
    return Agreement(difference, float((logits.argmax(1) == reference.argmax(1)).float().mean()), len(reference))


def pick(rates: dict[str, float], agreed: dict[str, Agreement], unavailable: dict[str, str]) -> BackendChoice:
    """The fastest candidate whose answers are what they should be; `rates` in the order of simplicity, eager first."""
    sound: dict[str, float] = {}
    for name, rate in rates.items():
        if BACKENDS[name].changes_answers or agreed[name].logits <= TOLERANCE:
            sound[name] = rate
        else:
            unavailable = {**unavailable, name: f"logits differ from eager's by {agreed[name].logits:.1e}"}
    best = next(iter(sound))
    for name, rate in sound.items():
        if rate > MARGIN * sound[best]:
            best = name
    reason = "the only candidate" if len(sound) == 1 else f"{sound[best] / next(iter(sound.values())):.2f} x eager"
    return BackendChoice(best, reason, dict(rates), dict(agreed), dict(unavailable))


def in_batches(forward: Forward, pixels: Tensor, batch_size: int) -> Tensor:
    """Logits float32 (N, C) of images (N, 3, S, S) as `forward` wants them, in batches of exactly `batch_size`: the last is filled up with the
    first images."""
    whole = -(-len(pixels) // batch_size) * batch_size
    filled = pixels.repeat(-(-whole // len(pixels)), 1, 1, 1)[:whole]
    with torch.inference_mode():
        return torch.cat([forward(batch) for batch in filled.split(batch_size)])[: len(pixels)]


def choose_backend(
    model: nn.Module,
    pixels: Tensor,
    allowed: Sequence[str],
    batch_size: int,
    quantised: Quantised | None = None,
    norm: Norm | None = None,
) -> BackendChoice:
    """Measure the `allowed` backends for `model` on real images `pixels` (N, 3, S, S), on the device where they lie: uint8 with the model's `norm`,
    normalised float32 without.

    Answers are compared on all of `pixels`, speed on one batch. `quantised`: the step's network for int8.

    Raises ValueError when only one backend is allowed, by name, and it cannot run or is not exact though it should be.
    """
    device = pixels.device
    shape: Shape = (batch_size, *pixels.shape[1:])
    batch = pixels.repeat(-(-batch_size // len(pixels)), 1, 1, 1)[:batch_size]
    forwards: dict[str, Forward] = {}
    unavailable: dict[str, str] = {}
    for name in dict.fromkeys(["eager", *allowed]):
        try:
            forwards[name] = build(name, model, shape, device, quantised, norm)
        except UnavailableError as error:
            if name == "eager":
                raise
            unavailable[name] = str(error)
    logits = {name: in_batches(forward, pixels, batch_size) for name, forward in forwards.items()}
    agreed = {name: agreement(one, logits["eager"]) for name, one in logits.items()}
    rates = {name: batch_size / seconds for name, seconds in _best_seconds(forwards, batch).items()}
    if "eager" not in allowed:
        named = {name: rate for name, rate in rates.items() if name != "eager"}
        wrong = [n for n in named if not BACKENDS[n].changes_answers and agreed[n].logits > TOLERANCE]
        if not named or wrong:
            why = "; ".join(unavailable.values()) or f"its logits differ from eager's by {agreed[wrong[0]].logits:.1e}"
            raise ValueError(f"predict.backend={allowed[0]} cannot be used here: {why}; use predict.backend=auto")
        name = next(iter(named))
        return BackendChoice(
            name, f"asked for by name, {rates[name] / rates['eager']:.2f} x eager", rates, agreed, unavailable
        )
    return pick(rates, agreed, unavailable)


def _best_seconds(forwards: dict[str, Forward], batch: Tensor) -> dict[str, float]:
    """Seconds of one batch, best of interleaved rounds."""
    best = dict.fromkeys(forwards, float("inf"))
    began = time.perf_counter()
    for number in range(ROUNDS):
        if number and time.perf_counter() - began > BUDGET:
            break
        for name, forward in forwards.items():
            started = time.perf_counter()
            with torch.inference_mode():
                forward(batch).sum().item()  # .item() waits for the device
            best[name] = min(best[name], time.perf_counter() - started)
    return best
