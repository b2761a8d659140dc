"""Typed settings of a run and of its verbs.

Names follow timm where timm has one (`img_size`, `drop`, `drop_path`, `model_ema`, `smoothing`, `opt`, `sched`). Every block is frozen: a
changed setting is a changed copy (`block.model_copy(update=…)`).
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import Block, parse
from engine.settings.cluster import ClusterSettings as ClusterSettings
from engine.settings.generation_schedule import apply_schedule
from engine.settings.recipe import CleanSettings, DistilSettings, TagSettings, refuse
from engine.settings.select import RankBy as RankBy
from engine.settings.select import SelectSettings
from engine.tables.schema import log_sum_exp


class SourceSettings(Block):
    """How a collection of images is read: a folder, Parquet file(s) or a table of URIs, local or on any pyarrow filesystem."""

    image_column: str | None = Field(
        None, description="Parquet column of encoded bytes; found by itself when it has a usual name"
    )
    key_column: str | None = None
    label_column: str | None = None
    rows_per_shard: int = Field(2048, ge=1, description="rows of a shard, the unit of labelling work")
    shard_bytes: int = Field(64 * 2**20, ge=1, description="loose files are grouped into shards of about this size")
    max_rejected_percent: float = Field(
        1.0, ge=0, le=100, description="share of unusable images above which a step fails"
    )


class ImagesSettings(SourceSettings):
    """One collection, for the jobs that work on one."""

    uri: str
    exclude: list[str] = Field(
        default_factory=list, description="collections whose images are left out, by exact content"
    )


class DataSettings(SourceSettings):
    """The collections of a run."""

    labelled: str
    pool: str | None = None
    validation: str | None = None
    test: str | None = None
    classes: list[str] | None = Field(
        None, description="class names in index order; otherwise the sorted names of the labelled set"
    )


class ModelSettings(Block):
    """A timm architecture and its regularisation."""

    model: str
    img_size: int = Field(224, ge=1)
    drop: float = Field(0.0, ge=0, lt=1, description="dropout before the classifier")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="stochastic depth: drop rate at the last block, linear in depth"
    )
    pretrained: bool = False
    model_args: dict[str, Any] = Field(default_factory=dict, description="further arguments of timm.create_model")
    mean: tuple[float, float, float] | None = Field(
        None, description="normalisation of pixels in 0..1; timm's own when not given"
    )
    std: tuple[float, float, float] | None = None

    @property
    def architecture(self) -> tuple[str, dict[str, Any]]:
        """What two models have alike when one can start from the other's weights; image size and regularisation may differ."""
        return self.model, self.model_args


class NoiseSettings(Block):
    """What the learner's images go through; a teacher that labels goes through none of it."""

    hflip: float = Field(0.5, ge=0, le=1)
    pad: int = Field(
        0, ge=0, description="translate by up to this many pixels, reflecting at the border (small images)"
    )
    scale: tuple[float, float] | None = Field(
        None, description="random resized crop: range of the area's share, e.g. [0.35, 1]"
    )
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    aa_num_ops: int = Field(0, ge=0, description="RandAugment: operations an image; 0 is off")
    aa_magnitude: float = Field(9.0, ge=0, description="RandAugment: strength, 10 is the usual full scale")
    aa_uniform: bool = Field(False, description="RandAugment: draw each strength uniformly from 0 to aa_magnitude")
    cutout: int = Field(0, ge=0, description="side of one grey square in pixels; 0 is off")


class FitSettings(Block):
    """How a model is trained. Lengths are counted in steps, batches in images of all workers together."""

    objective: str = "supervised"
    objective_args: dict[str, Any] = Field(default_factory=dict)
    loss: str = "soft_ce"
    steps: int = Field(ge=1)
    batch: dict[str, int] = Field(description="images a step of each stream, e.g. {labelled: 64, pseudo: 192}")
    stream_weight: dict[str, float] = Field(
        default_factory=dict, description="weight of a stream's mean loss; its share of the batch when not given"
    )
    noise: dict[str, NoiseSettings] = Field(default_factory=dict, description="view of each stream")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of hard targets only")
    opt: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(5e-4, ge=0)
    sched: Literal["cosine", "step", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    decay_steps: list[int] = Field(
        default_factory=list, description="steps at which sched=step multiplies the rate by decay_rate"
    )
    decay_rate: float = Field(0.1, gt=0, le=1)
    clip_grad: float | None = Field(None, gt=0)
    model_ema: bool = True
    model_ema_decay: float = Field(0.999, ge=0, lt=1)
    amp: bool | Literal["auto"] = Field(
        "auto", description="bfloat16 autocast; auto: on GPUs and on CPUs that gain by it"
    )
    channels_last: bool = True
    seed: int = 0
    checkpoint_every: int = Field(
        500, ge=1, description="steps between checkpoints: what a killed worker loses at most"
    )
    cache_bytes: int = Field(
        2 * 2**30, ge=0, description="decoded sets up to this size are kept in memory, larger ones are streamed"
    )
    log_every: int = Field(100, ge=1)
    freeze: list[str] = Field(
        default_factory=list,
        description="parts of the network that stay as they are, weights and running statistics, e.g. [conv_stem, bn1, blocks.0]",
    )
    freeze_steps: int = Field(0, ge=0, description="first steps in which the classifier alone learns, the body stays")
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate of a layer group over that of the one after it")


class PredictSettings(Block):
    """How the pool is labelled."""

    top_p: int = Field(8, ge=1, description="classes kept an image")
    batch_size: int = Field(128, ge=1)
    backend: Literal[
        "auto", "eager", "channels_last", "frozen", "compiled", "openvino", "bf16", "openvino_bf16", "fp16", "int8"
    ] = Field(
        "auto",
        description="how the network is run; auto: the fastest exact one here, by measurement. bf16 (on CPUs with AMX fastest as openvino_bf16), "
        "fp16 and int8 change answers slightly",
    )
    amp: bool = Field(
        False, description="the same as backend=bf16: faster on GPUs and on some CPUs, answers change slightly"
    )
    views: Literal["one", "flip"] = Field(
        "one", description="flip: probabilities averaged over the image and its mirror"
    )
    decode: Literal["full", "scaled", "nvjpeg"] = Field(
        "full",
        description="scaled: JPEGs much larger than needed are decoded at a fraction of their size; nvjpeg: JPEGs are decoded on the GPU; "
        "with either, answers change slightly",
    )
    calibrate: bool = Field(
        False, description="fit the temperature on the validation images before the pool is labelled (jobs.self_train)"
    )
    temperature: float = Field(1.0, gt=0, description="logits are divided by it; scores then mean what they say")
    further: list[Literal["entropy", "energy"]] = Field(
        default_factory=list, description="further scores to store, 2 bytes an image each, for select.score"
    )
    log_sum_exp: list[float] = Field(
        default_factory=list,
        description="temperatures at which soft targets may be sharpened exactly, 2 bytes an image each, e.g. [0.5]",
    )
    activation: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="sigmoid: an image may have several labels, each class has a probability of its own"
    )

    @model_validator(mode="after")
    def _amp_is_bf16(self) -> Self:
        if self.amp and self.backend not in ("auto", "bf16"):
            raise ValueError(f"amp=true is backend=bf16, and backend={self.backend} was set: set one of the two")
        if any(one <= 0 for one in self.log_sum_exp):
            raise ValueError(f"log_sum_exp={self.log_sum_exp}: temperatures are above 0, each")
        if self.activation == "sigmoid" and self.columns:
            raise ValueError(
                "further and log_sum_exp are measures of one distribution over the classes, and activation=sigmoid has one a class: leave out one"
            )
        return self

    def for_evaluation(self) -> Self:
        """For measures of the model itself: no further columns, and no int8, which is calibrated on the pool that it labels and on nothing else."""
        backend = "auto" if self.backend == "int8" else self.backend
        return self.model_copy(update={"further": [], "log_sum_exp": [], "backend": backend})

    @property
    def columns(self) -> tuple[str, ...]:
        """The further columns of the predictions."""
        names = [*self.further, *(log_sum_exp(one) for one in self.log_sum_exp)]
        return tuple(sorted(set(names)))

    def fingerprinted(self) -> dict[str, Any]:
        """What decides an answer: an exact backend and the batch size do not. What was not asked for is not named."""
        inexact = ("bf16", "openvino_bf16", "fp16", "int8")
        precision = "bf16" if self.amp else self.backend if self.backend in inexact else "fp32"
        asked: dict[str, Any] = {}
        if self.temperature != 1:
            asked["temperature"] = self.temperature
        if self.activation != "softmax":
            asked["activation"] = self.activation
        if self.columns:
            asked["columns"] = self.columns
        return {"top_p": self.top_p, "views": self.views, "precision": precision, "decode": self.decode, **asked}


class GuardSettings(Block):
    """When a generation ends the self-training, or is thrown away. Decisions need validation images; without them they are only told."""

    enabled: bool = Field(True, description="obey the decisions; otherwise they are told and recorded, not obeyed")
    level: float = Field(0.05, gt=0, lt=1, description="significance level of every test")
    lost_class: int = Field(
        20, ge=1, description="pseudo-labels that a class must have had for losing all of them to count"
    )
    settled: float = Field(
        0.01, ge=0, lt=1, description="stop when a smaller share of the images than this changed their label"
    )


class SelfTrainSettings(Block):
    """The main job: a recipe, its data, its models and its verbs."""

    recipe: Literal[
        "noisy_student",
        "threshold",
        "supervised",
        "billion_scale",
        "self_distillation",
        "clean_labels",
        "rotation",
        "inpainting",
        "self_supervised",
        "fixmatch",
        "uda",
        "meta_pseudo_labels",
        "hashtags",
        "semi_weakly_supervised",
    ] = "noisy_student"
    task: Literal["classify"] = "classify"
    run: str = Field(description="name of the run below STORE/runs/")
    store: str = Field("store", description="folder or URI that holds steps and runs")
    data: DataSettings
    teacher_model: ModelSettings
    student_model: ModelSettings | None = Field(None, description="the teacher's architecture when not given")
    teacher: FitSettings
    student: FitSettings | None = None
    pretext: FitSettings | None = Field(
        None,
        description="a first fit without labels; networks like the teacher's start from its weights instead of at random",
    )
    finetune: FitSettings | None = Field(None, description="a last fit on true labels only: pre-train then fine-tune")
    warm_start: bool = Field(False, description="students start from their teacher's weights instead of from scratch")
    relabel: Literal["everything", "sticky", "filtered"] = Field(
        "everything",
        description="sticky: a label once accepted never changes (scikit-learn's mode, recipe threshold); filtered: later teachers label"
        " only what the first selection chose (recipe noisy_student)",
    )
    published_noise: bool = Field(
        False,
        description="noisy_student: the noise, dropout, image size and batch ratio that its program gives an EfficientNet student of this size",
    )
    finetune_img_size: int | None = Field(
        None,
        ge=1,
        description="noisy_student: the finetune sees larger images than the fit (the fix of train and test resolution)",
    )
    predict: PredictSettings = PredictSettings()
    select: SelectSettings = SelectSettings()
    selects: list[SelectSettings] | None = Field(
        None, description="one selection a generation, e.g. a cut that widens; `select` when not given"
    )
    distil: DistilSettings = DistilSettings()
    clean: CleanSettings = CleanSettings()
    tags: TagSettings | None = None
    tagging: FitSettings | None = Field(None, description="how the pool's tags are learned, before the labels")
    guard: GuardSettings = GuardSettings()
    generations: int = Field(2, ge=0)
    schedule: list[dict[str, Any]] | None = Field(
        None,
        description="settings of single generations, dotted, one mapping a generation, as a search finds them:"
        " [{select.threshold: 0.9}, {select.threshold: 0.7, student.lr: 0.05}]",
    )
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _recipe_has_what_it_needs(self) -> Self:
        refuse(self)
        for name in ("pretext", "tagging", "teacher", "student", "finetune"):
            if (fit := getattr(self, name)) is not None:
                self.cluster.refuse_uneven(name, fit.batch)
        if self.selects is not None and len(self.selects) != self.generations:
            raise ValueError(
                f"selects has {len(self.selects)} entries for {self.generations} generations: give one each, or use select"
            )
        if self.predict.calibrate and self.data.validation is None:
            raise ValueError("predict.calibrate fits the temperature on validation images: set data.validation")
        if self.schedule is not None:
            if self.selects is not None or len(self.schedule) != self.generations:
                raise ValueError(
                    f"schedule has one mapping for each of the {self.generations} generations, and selects is left out: found"
                    f" {len(self.schedule)} mappings{' and selects' if self.selects is not None else ''}"
                )
            for generation in range(1, self.generations + 1):
                self.at(generation)
        return self

    def at(self, generation: int) -> Self:
        """The settings of a generation, counted from 1: those of the run with the generation's own on top."""
        if not self.schedule:
            return self
        where = f"schedule of generation {generation}"
        tree = self.model_dump(mode="json", exclude={"schedule"})
        return parse(type(self), apply_schedule(tree, self.schedule[generation - 1], where), where)

    def selection(self, generation: int) -> SelectSettings:
        """The selection of a generation, counted from 1."""
        return self.selects[generation - 1] if self.selects is not None else self.at(generation).select

    def learner(self, generation: int) -> tuple[ModelSettings, FitSettings]:
        """The student of a generation, counted from 1, and its fit."""
        now = self.at(generation)
        return now.student_model or now.teacher_model, now.student or now.teacher
