"""Settings of training."""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import RUNTIME, Block

SGD_RATE, MOMENTUM, DECAY_RATE = 0.1, 0.9, 0.1


class NoiseSettings(Block):
    """What the learner's images go through; a teacher that predicts sees none of it."""

    hflip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    pad: int = Field(0, ge=0, description="largest translation in pixels, reflected at the border (small images)")
    scale: tuple[float, float] | None = Field(
        None, description="random resized crop: range of the area's share, e.g. [0.35, 1] (default: no crop)"
    )
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="random resized crop: range of width / height")
    aa_num_ops: int = Field(0, ge=0, description="RandAugment: number of operations per image; 0 is off")
    aa_magnitude: float = Field(9.0, ge=0, description="RandAugment: strength, 10 is the usual full scale")
    aa_uniform: bool = Field(False, description="RandAugment: each strength is drawn uniformly from 0 to aa_magnitude")
    cutout: int = Field(0, ge=0, description="side of one grey square in pixels; 0 is off")


class FitSettings(Block):
    """How a model is trained. Lengths are counted in steps, batches in images of all workers together."""

    objective: str = Field("supervised", description="name of the objective: losses, views and modules of the fit")
    objective_args: dict[str, Any] = Field(default_factory=dict, description="options of the objective")
    loss: str = Field("soft_ce", description="name of the loss on labelled streams")
    steps: int = Field(ge=1, description="number of training steps")
    batch: dict[str, int] = Field(description="images per step of each stream, e.g. {labelled: 64, pseudo: 192}")
    stream_weight: dict[str, float] = Field(
        default_factory=dict, description="weight of each stream's mean loss (default: its share of the batch)"
    )
    noise: dict[str, NoiseSettings] = Field(default_factory=dict, description="augmentation of each stream")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of hard targets only")
    opt: Literal["sgd", "adamw"] = Field("sgd", description="optimiser")
    lr: float = Field(SGD_RATE, gt=0, description="learning rate; opt=adamw needs one of its own, 0.001 is usual")
    momentum: float = Field(MOMENTUM, ge=0, lt=1, description="momentum of SGD")
    nesterov: bool = Field(True, description="Nesterov's momentum for SGD")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay")
    sched: Literal["cosine", "step", "constant"] = Field("cosine", description="schedule of the learning rate")
    warmup_steps: int = Field(0, ge=0, description="first steps, in which the rate rises linearly")
    decay_steps: list[int] = Field(
        default_factory=list, description="steps at which sched=step multiplies the rate by decay_rate"
    )
    decay_rate: float = Field(DECAY_RATE, gt=0, le=1, description="factor of sched=step")
    clip_grad: float | None = Field(None, gt=0, description="largest norm of the gradient (default: no limit)")
    model_ema: bool = Field(True, description="the model is an average of the weights")
    model_ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of that average per step")
    amp: bool | Literal["auto"] = Field(
        "auto", description="bfloat16 autocast; auto: on GPUs and on CPUs that gain by it"
    )
    channels_last: bool = Field(True, description="channels-last memory format")
    seed: int = Field(0, description="random state of this fit; 1,000 x the run's seed is added")
    checkpoint_every: int = Field(
        500,
        ge=1,
        description="steps between checkpoints: the most that a killed worker loses",
        json_schema_extra=RUNTIME,
    )
    cache_bytes: int = Field(
        2 * 2**30,
        ge=0,
        description="largest decoded set in bytes that is kept in memory; larger ones are streamed",
        json_schema_extra=RUNTIME,
    )
    log_every: int = Field(100, ge=1, description="steps between two lines of the log", json_schema_extra=RUNTIME)
    freeze: list[str] = Field(
        default_factory=list,
        description="parts of the network whose weights and running statistics stay, e.g. [conv_stem, bn1, blocks.0]",
    )
    freeze_steps: int = Field(0, ge=0, description="first steps, in which only the classifier learns")
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a layer group over that of the one after it")

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        for refused, remedy in _WITHOUT_EFFECT:
            if refused(self):
                raise ValueError(remedy)
        return self


_WITHOUT_EFFECT: list[tuple[Callable[[FitSettings], bool], str]] = [
    (
        lambda s: s.opt == "adamw" and s.lr >= SGD_RATE,
        f"opt=adamw diverges at lr={SGD_RATE} and above, and {SGD_RATE} is the default, for SGD: set lr, 0.001 is usual",
    ),
    (
        lambda s: s.opt == "adamw" and (s.momentum != MOMENTUM or not s.nesterov),
        "momentum and nesterov belong to opt=sgd: leave them out, or set opt=sgd",
    ),
    (
        lambda s: s.warmup_steps >= s.steps,
        "warmup_steps must be fewer than steps: the rate would never be reached. Lower warmup_steps, or raise steps",
    ),
    (
        lambda s: s.sched != "step" and bool(s.decay_steps),
        "decay_steps belong to sched=step: set it, or leave decay_steps out",
    ),
    (
        lambda s: s.sched == "step" and not s.decay_steps,
        "sched=step multiplies the rate at decay_steps: set them, or take sched=constant",
    ),
    (
        lambda s: any(not s.warmup_steps <= step < s.steps for step in s.decay_steps),
        "decay_steps must lie after warmup_steps and before steps, each: other steps have no effect",
    ),
    (
        lambda s: s.sched != "step" and s.decay_rate != DECAY_RATE,
        "decay_rate belongs to sched=step: set it, or leave decay_rate out",
    ),
]
"""What would have no effect, or only a bad one, and what to set instead."""


class FitsSettings(Block):
    """The fits of a run; a recipe says which of them it makes."""

    teacher: FitSettings = Field(description="fit of the first teacher, or the only fit of recipes without students")
    student: FitSettings | None = Field(None, description="fit of the students (default: none)")
    pretext: FitSettings | None = Field(
        None,
        description="first fit, without labels; networks like the teacher's start from its weights (default: none)",
    )
    finetune: FitSettings | None = Field(None, description="last fit of a student, on true labels only (default: none)")
    tagging: FitSettings | None = Field(None, description="fit of the pool's tags, before the labels (default: none)")

    def named(self) -> dict[str, FitSettings]:
        """The fits that are set, by name."""
        return {name: fit for name in type(self).model_fields if (fit := getattr(self, name)) is not None}
