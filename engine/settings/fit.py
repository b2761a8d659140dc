"""Settings of training."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from engine.settings.block import RUNTIME, Block
from engine.settings.names import LOSSES, OBJECTIVES, STREAMS, check_name, check_optimiser, check_or_class

LARGEST_SEED = 2**31 - 1
AreaShare = Annotated[float, Field(gt=0, le=1)]
AspectRatio = Annotated[float, Field(gt=0, le=100)]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=0, le=10**6)]
OptimiserArgument = bool | Finite | list[Finite]
StepNumber = Annotated[int, Field(ge=1, le=10**9)]


ADAMW_LR = 0.001
"""Default of `lr` with opt=adamw."""


class NoiseSettings(Block):
    """What the learner's images go through; a teacher that predicts sees none of it."""

    hflip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    pad: int = Field(0, ge=0, le=4096, description="largest translation in pixels (small images)")
    pad_mode: Literal["reflect", "grey"] = Field("reflect", description="what a translation shows beyond the border")
    scale: tuple[AreaShare, AreaShare] | None = Field(
        None, description="random resized crop: range of the area's share, e.g. [0.35, 1] (default: no crop)"
    )
    ratio: tuple[AspectRatio, AspectRatio] = Field(
        (3 / 4, 4 / 3), description="random resized crop: range of width / height"
    )
    aa_num_ops: int = Field(0, ge=0, le=64, description="RandAugment: number of operations per image; 0 is off")
    aa_magnitude: float = Field(9.0, ge=0, le=100, description="RandAugment: strength, 10 is the usual full scale")
    aa_uniform: bool = Field(False, description="RandAugment: each strength is drawn uniformly from 0 to aa_magnitude")
    aa_scale: Literal["torchvision", "timm", "tf"] = Field(
        "torchvision",
        description="RandAugment: whose operations, and what a magnitude means; tf: the program of Noisy Student and Meta Pseudo Labels",
    )
    aa_prob: float | None = Field(
        None,
        gt=0,
        le=1,
        description="RandAugment: probability that a drawn operation is applied (default: 1; timm 0.5)",
    )
    aa_translate: float = Field(
        100.0, ge=0, le=16_384, description="RandAugment, tf: translation in pixels at magnitude 10"
    )
    aa_cutout: float = Field(
        40.0,
        ge=0,
        le=16_384,
        description="RandAugment, tf: half side of its Cutout in pixels at magnitude 10; 0 leaves it out",
    )
    cutout: int = Field(0, ge=0, le=4096, description="side of one grey square in pixels; 0 is off")

    @model_validator(mode="after")
    def _pixels_are_tfs(self) -> Self:
        for name in ("aa_translate", "aa_cutout"):
            if self.aa_scale != "tf" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}={getattr(self, name):g} has no effect with aa_scale={self.aa_scale}: set aa_scale=tf"
                )
        return self

    @field_validator("scale", "ratio")
    @classmethod
    def _rises(cls, span: tuple[float, float] | None) -> tuple[float, float] | None:
        if span is not None and span[0] > span[1]:
            raise ValueError(f"a range goes from the lower to the higher end: write [{span[1]:g}, {span[0]:g}]")
        return span


class FitSettings(Block):
    """How a model is trained. Lengths are counted in steps, batches in images of all workers together."""

    objective: str = Field("supervised", description="name of the objective: losses, views and modules of the fit")
    objective_args: dict[str, Any] = Field(default_factory=dict, description="options of the objective")
    loss: str = Field("soft_ce", description="name of the loss on labelled streams")
    steps: int = Field(ge=1, le=10**9, description="number of training steps")
    batch: dict[str, Annotated[int, Field(ge=1, le=10**7)]] = Field(
        min_length=1, description="images per step of each stream, e.g. {labelled: 64, pseudo: 192}"
    )
    stream_weight: dict[str, Annotated[float, Field(ge=0, le=10**6)]] = Field(
        default_factory=dict, description="weight of each stream's mean loss (default: its share of the batch)"
    )
    noise: dict[str, NoiseSettings] = Field(default_factory=dict, description="augmentation of each stream")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of hard targets only")
    opt: str = Field("sgd", description="optimiser: sgd, adamw, or another of timm's, such as rmsproptf or lamb")
    opt_args: dict[str, OptimiserArgument] = Field(
        default_factory=dict,
        description="other arguments of timm's optimiser, e.g. {alpha: 0.9, eps: 0.001} of rmsproptf",
    )
    lr: float = Field(
        0.1, gt=0, le=1000, description="learning rate (default: 0.1 of sgd, 0.001 of adamw; to be set for others)"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD and of optimisers like it")
    nesterov: bool = Field(True, description="Nesterov's momentum for SGD")
    weight_decay: float = Field(5e-4, ge=0, le=10, description="weight decay")
    sched: Literal["cosine", "cosine_7_16", "flat_cosine", "step", "exp", "constant"] = Field(
        "cosine",
        description="schedule of the learning rate; cosine_7_16: FixMatch's, which ends at 0.2; flat_cosine: constant for flat_share, then a cosine;"
        " exp: times decay_rate every decay_every steps",
    )
    flat_share: float = Field(0.75, ge=0, lt=1, description="flat_cosine: share of the steps at the full rate")
    decay_every: int | None = Field(
        None, ge=1, le=10**9, description="exp: steps between two decays (default: to be set)"
    )
    warmup_steps: int = Field(0, ge=0, le=10**9, description="first steps, in which the rate rises linearly")
    decay_steps: list[StepNumber] = Field(
        default_factory=list, description="steps at which sched=step multiplies the rate by decay_rate"
    )
    decay_rate: float = Field(0.1, gt=0, le=1, description="factor of sched=step and sched=exp")
    clip_grad: float | None = Field(
        None, gt=0, le=10**6, description="largest norm of the gradient (default: no limit)"
    )
    model_ema: bool = Field(True, description="the model is an average of the weights")
    model_ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of that average per step")
    amp: bool | Literal["auto"] = Field(
        "auto", description="bfloat16 autocast; auto: on GPUs and on CPUs that gain by it"
    )
    channels_last: bool = Field(True, description="channels-last memory format")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="random state of this fit; 1,000 x the run's seed is added")
    checkpoint_every: int = Field(
        500,
        ge=1,
        le=10**9,
        description="steps between checkpoints: the most that a killed worker loses",
        json_schema_extra=RUNTIME,
    )
    cache_bytes: int = Field(
        2 * 2**30,
        ge=0,
        le=2**50,
        description="largest decoded set in bytes that is kept in memory; larger ones are streamed",
        json_schema_extra=RUNTIME,
    )
    log_every: int = Field(
        100, ge=1, le=10**9, description="steps between two lines of the log", json_schema_extra=RUNTIME
    )
    freeze: list[str] = Field(
        default_factory=list,
        description="parts of the network whose weights and running statistics stay, e.g. [conv_stem, bn1, blocks.0]",
    )
    freeze_steps: int = Field(0, ge=0, le=10**9, description="first steps, in which only the classifier learns")
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a layer group over that of the one after it")

    @field_validator("objective")
    @classmethod
    def _objective_is_known(cls, name: str) -> str:
        return check_or_class("objective", name, OBJECTIVES)

    @field_validator("loss")
    @classmethod
    def _loss_is_known(cls, name: str) -> str:
        return check_name("loss", name, LOSSES)

    @field_validator("opt")
    @classmethod
    def _optimiser_is_known(cls, name: str) -> str:
        return check_optimiser(name)

    @field_validator("batch", "stream_weight", "noise")
    @classmethod
    def _streams_are_known(cls, streams: dict[str, Any]) -> dict[str, Any]:
        for name in streams:
            check_name("stream", name, STREAMS)
        return streams

    @field_validator("decay_steps")
    @classmethod
    def _steps_rise(cls, steps: list[int]) -> list[int]:
        if sorted(set(steps)) != steps:
            raise ValueError("steps rise, each once")
        return steps

    @model_validator(mode="before")
    @classmethod
    def _rate_is_the_optimisers(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("opt") == "adamw" and tree.get("lr") is None:
            return {**tree, "lr": ADAMW_LR}
        if isinstance(tree, dict) and tree.get("opt", "sgd") not in ("sgd", "adamw") and tree.get("lr") is None:
            raise ValueError(f"opt={tree['opt']} has no usual learning rate: set lr")
        return tree

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        for what, names in (("stream_weight", self.stream_weight), ("noise", self.noise)):
            if unknown := sorted(names.keys() - self.batch.keys()):
                raise ValueError(f"{what} names the stream {unknown[0]!r}, but batch has {', '.join(self.batch)}")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} of steps={self.steps}: the rate would rise to the end; lower warmup_steps"
            )
        if self.sched == "step" and not self.decay_steps:
            raise ValueError("sched=step needs the steps at which the rate falls: set decay_steps")
        if self.sched == "exp" and self.decay_every is None:
            raise ValueError("sched=exp lowers the rate every decay_every steps: set it, 2.4 epochs for EfficientNets")
        if any(not self.warmup_steps <= step < self.steps for step in self.decay_steps):
            raise ValueError(
                "decay_steps must lie after warmup_steps and before steps, each: other steps have no effect"
            )
        for name, rule in WITHOUT_EFFECT.items():
            usual = type(self).model_fields[name].get_default(call_default_factory=True)
            if getattr(self, name) != usual and (remedy := rule(self)):
                raise ValueError(f"{name}={getattr(self, name)} has no effect: {remedy}")
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if (
            self.stream_weight
            and self.batch.keys() <= self.stream_weight.keys()
            and not any(self.stream_weight.values())
        ):
            raise ValueError("stream_weight: every stream has weight 0, so nothing would be learned")
        return self


WITH_MOMENTUM = ("sgd", "sgdw", "sgdp", "rmsprop", "rmsproptf", "lars", "larc", "madgrad")
"""Optimisers that take `momentum`."""
WITHOUT_EFFECT: dict[str, Callable[[FitSettings], str | None]] = {
    "momentum": lambda fit: (
        f"opt={fit.opt} has betas of its own; leave it out" if fit.opt not in WITH_MOMENTUM else None
    ),
    "nesterov": lambda fit: f"opt={fit.opt} has no momentum of this kind; leave it out" if fit.opt != "sgd" else None,
    "opt_args": lambda fit: (
        f"opt={fit.opt} is given all that it needs; leave it out" if fit.opt in ("sgd", "adamw") else None
    ),
    "decay_steps": lambda fit: f"sched={fit.sched} does not read it; set sched=step" if fit.sched != "step" else None,
    "decay_rate": lambda fit: (
        f"sched={fit.sched} does not read it; set sched=step" if fit.sched not in ("step", "exp") else None
    ),
    "decay_every": lambda fit: f"sched={fit.sched} does not read it; set sched=exp" if fit.sched != "exp" else None,
    "flat_share": lambda fit: (
        f"sched={fit.sched} does not read it; set sched=flat_cosine" if fit.sched != "flat_cosine" else None
    ),
    "model_ema_decay": lambda fit: "model_ema=false keeps no average; leave it out" if not fit.model_ema else None,
}
"""Settings that others switch off, and why with what to do; None where they have an effect."""


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
