"""Typed settings of a run and of its verbs.

Names follow timm where timm has one (`img_size`, `drop`, `drop_path`, `model_ema`, `smoothing`, `opt`, `sched`). Every block is frozen: a
changed setting is a changed copy (`block.model_copy(update=…)`).
"""

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from engine.config import Block


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
    amp: bool | Literal["auto"] = Field("auto", description="bfloat16 autocast; auto: on GPUs and on CPUs with AMX")
    channels_last: bool = True
    seed: int = 0
    checkpoint_every: int = Field(
        500, ge=1, description="steps between checkpoints: what a killed worker loses at most"
    )
    cache_bytes: int = Field(
        2 * 2**30, ge=0, description="decoded sets up to this size are kept in memory, larger ones are streamed"
    )
    log_every: int = Field(100, ge=1)


class PredictSettings(Block):
    """How the pool is labelled."""

    top_p: int = Field(8, ge=1, description="classes kept an image")
    batch_size: int = Field(128, ge=1)
    backend: Literal["auto", "eager", "channels_last", "frozen", "compiled", "openvino", "bf16", "fp16", "int8"] = (
        Field(
            "auto",
            description="how the network is run; auto: the fastest exact one here, by measurement. bf16, fp16 and int8 change answers slightly",
        )
    )
    amp: bool = Field(
        False, description="the same as backend=bf16: faster on GPUs and on CPUs with AMX, answers change slightly"
    )
    views: Literal["one", "flip"] = Field(
        "one", description="flip: probabilities averaged over the image and its mirror"
    )
    decode: Literal["full", "scaled"] = Field(
        "full",
        description="scaled: JPEGs much larger than needed are decoded at a half, quarter or eighth; answers change slightly",
    )
    calibrate: bool = Field(
        False, description="fit the temperature on the validation images before the pool is labelled (jobs.self_train)"
    )
    temperature: float = Field(1.0, gt=0, description="logits are divided by it; scores then mean what they say")

    @model_validator(mode="after")
    def _amp_is_bf16(self) -> Self:
        if self.amp and self.backend not in ("auto", "bf16"):
            raise ValueError(f"amp=true is backend=bf16, and backend={self.backend} was set: set one of the two")
        return self

    def of_the_model(self) -> Self:
        """For measures of the model itself: int8 is calibrated on the pool that it labels, and on nothing else."""
        return self.model_copy(update={"backend": "auto"}) if self.backend == "int8" else self

    def fingerprinted(self) -> dict[str, Any]:
        """What decides an answer: an exact backend and the batch size do not. A temperature of 1 is none: such predictions keep their name."""
        precision = "bf16" if self.amp else self.backend if self.backend in ("bf16", "fp16", "int8") else "fp32"
        softened = {} if self.temperature == 1 else {"temperature": self.temperature}
        return {"top_p": self.top_p, "views": self.views, "precision": precision, "decode": self.decode, **softened}


class SelectSettings(Block):
    """Which predictions become pseudo-labels."""

    score: Literal["max_probability", "margin"] = Field(
        "max_probability", description="margin: probability of the best class minus that of the second"
    )
    threshold: float = Field(0.0, ge=0, lt=1, description="keep scores above this, strictly")
    thresholds: dict[str, float] = Field(
        default_factory=dict, description="thresholds of single classes by name; the others take `threshold`"
    )
    cut: Literal["fixed", "quantile", "flexmatch", "freematch", "adamatch", "softmatch"] = Field(
        "fixed",
        description="fixed: at the threshold; the others from the pool's own scores. `threshold` is FlexMatch's highest cut; the others are"
        " never below it. quantile and adamatch take `share`; softmatch has no cut, but keeps an image with its weight as probability",
    )
    share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="quantile: best share of each class's images; adamatch: share of the mean confidence on labelled images",
    )
    at_least: float = Field(0.0, ge=0, le=1, description="floor of the accepted share of all images: cuts move down")
    at_most: float = Field(1.0, ge=0, le=1, description="ceiling of the accepted share of all images: cuts move up")
    per_class: int | None = Field(None, ge=1, description="K: keep at most the K best of each class")
    classes_per_image: int = Field(1, ge=1, description="P: an image may be kept for up to its P best classes")
    balance: Literal["none", "truncate", "duplicate", "published"] = Field(
        "none",
        description="truncate to the smallest class, duplicate up to K by count, or thin at random to about K as Noisy Student's program did",
    )
    targets: Literal["hard", "soft"] = "soft"
    temperature: float = Field(
        1.0, gt=0, description="soft targets are raised to 1/temperature and renormalised over the classes kept"
    )

    @property
    def needs_histogram(self) -> bool:
        """Whether the cuts depend on the scores of all images, so that they are counted first."""
        return self.cut != "fixed" or self.balance == "published" or self.is_bounded

    @property
    def is_bounded(self) -> bool:
        """Whether the accepted share has a floor or a ceiling."""
        return self.at_least > 0 or self.at_most < 1

    @model_validator(mode="after")
    def _can_be_combined(self) -> Self:
        for refused, remedy in _REFUSED:
            if refused(self):
                raise ValueError(remedy)
        return self


_REFUSED: list[tuple[Callable[[SelectSettings], bool], str]] = [
    (
        lambda s: s.balance in ("duplicate", "published") and s.per_class is None,
        "balance=duplicate and balance=published fill every class up to per_class: set per_class",
    ),
    (
        lambda s: s.score == "margin" and s.classes_per_image > 1,
        "score=margin ranks the best class of an image only: set classes_per_image=1, or score=max_probability",
    ),
    (
        lambda s: s.needs_histogram and s.classes_per_image > 1,
        "adaptive cuts, at_least, at_most and balance=published count the best class of each image: set classes_per_image=1",
    ),
    (
        lambda s: s.balance == "published" and (s.cut != "fixed" or bool(s.thresholds) or s.is_bounded),
        (
            "balance=published finds its own cuts down to `threshold` (0.3 in the paper):"
            " leave out cut, thresholds, at_least and at_most, or take balance=duplicate"
        ),
    ),
    (
        lambda s: s.score == "margin" and (s.cut not in ("fixed", "quantile") or s.balance == "published"),
        (
            "cut=flexmatch, freematch, adamatch, softmatch and balance=published are defined on probabilities:"
            " set score=max_probability, or cut=quantile"
        ),
    ),
    (
        lambda s: bool(s.thresholds) and s.cut not in ("fixed", "softmatch"),
        "thresholds are cuts of your own, and cut finds its own: leave out one of them",
    ),
    (
        lambda s: any(not 0 <= t < 1 for t in s.thresholds.values()),
        "thresholds must lie in 0 <= t < 1, each",
    ),
    (
        lambda s: s.share is None and s.cut == "quantile",
        "cut=quantile keeps the best share of each class: set share, e.g. share=0.2",
    ),
    (
        lambda s: s.share is not None and s.cut not in ("quantile", "adamatch"),
        "share belongs to cut=quantile and cut=adamatch: set one of them, or leave share out",
    ),
    (
        lambda s: s.cut == "flexmatch" and s.threshold == 0,
        "cut=flexmatch scales the threshold of each class: set threshold, 0.95 in the paper",
    ),
    (
        lambda s: s.at_least > s.at_most,
        "at_least is a floor and at_most a ceiling of the accepted share: at_least must not exceed at_most",
    ),
    (
        lambda s: s.cut == "softmatch" and s.is_bounded,
        "cut=softmatch weighs images and cuts none: leave out at_least and at_most, or take another cut",
    ),
]
"""Combinations that mean nothing, and what to set instead."""


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


class ClusterSettings(Block):
    """What a step may take. Nothing here changes a result, so nothing here is part of a fingerprint."""

    address: str | None = Field(None, description="a Ray cluster; an embedded local one when not given")
    num_cpus: int | None = Field(
        None, ge=1, description="CPUs of an embedded local Ray; all of the machine when not given"
    )
    num_workers: int | None = Field(
        None, ge=1, description="labelling actors; one a GPU, else one a CPU, when not given"
    )
    max_workers: int | None = Field(
        None,
        ge=1,
        description="labelling actors may become so many while a step runs, as machines join; fixed when not given",
    )
    train_workers: int = Field(1, ge=1)
    train_cpus: int | None = Field(
        None, ge=1, description="CPUs and threads of a training worker; an even share of all when not given"
    )
    gpus_per_worker: float | None = Field(None, ge=0)
    wave_shards: int = Field(4096, ge=1, description="shards handed to Ray Data at once")
    max_failures: int = Field(3, ge=0, description="worker crashes that a step survives")
    max_preemptions: int = Field(
        100, ge=0, description="losses of whole machines that a labelling step survives; they are no fault of the work"
    )
    stall_minutes: float = Field(
        30.0, gt=0, description="a labelling step in which no shard is finished for so long fails instead of hanging"
    )
    decode_threads: int | None = Field(
        None,
        ge=0,
        description="threads that decode ahead of a labelling worker; when not given its share of CPUs on a GPU, none on a CPU",
    )
    worker_logs: bool = Field(False, description="print what the workers print; it is in Ray's logs all the same")


class SelfTrainSettings(Block):
    """The main job: a recipe, its data, its models and its verbs."""

    recipe: Literal["noisy_student", "threshold", "supervised"] = "noisy_student"
    task: Literal["classify"] = "classify"
    run: str = Field(description="name of the run below STORE/runs/")
    store: str = Field("store", description="folder or URI that holds steps and runs")
    data: DataSettings
    teacher_model: ModelSettings
    student_model: ModelSettings | None = Field(None, description="the teacher's architecture when not given")
    teacher: FitSettings
    student: FitSettings | None = None
    finetune: FitSettings | None = Field(None, description="a last fit on true labels only: pre-train then fine-tune")
    warm_start: bool = Field(False, description="students start from their teacher's weights instead of from scratch")
    relabel: Literal["everything", "sticky"] = Field(
        "everything", description="sticky: a label once accepted never changes (scikit-learn's mode)"
    )
    predict: PredictSettings = PredictSettings()
    select: SelectSettings = SelectSettings()
    selects: list[SelectSettings] | None = Field(
        None, description="one selection a generation, e.g. a cut that widens; `select` when not given"
    )
    guard: GuardSettings = GuardSettings()
    generations: int = Field(2, ge=0)
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _recipe_has_what_it_needs(self) -> Self:
        if self.recipe != "supervised" and self.generations > 0:
            if self.data.pool is None:
                raise ValueError(f"recipe {self.recipe} labels a pool: set data.pool")
            if self.student is None:
                raise ValueError(f"recipe {self.recipe} trains students: set student")
        if self.selects is not None and len(self.selects) != self.generations:
            raise ValueError(
                f"selects has {len(self.selects)} entries for {self.generations} generations: give one each, or use select"
            )
        if self.predict.calibrate and self.data.validation is None:
            raise ValueError("predict.calibrate fits the temperature on validation images: set data.validation")
        return self

    def selection(self, generation: int) -> SelectSettings:
        """The selection of a generation, counted from 1."""
        return self.selects[generation - 1] if self.selects is not None else self.select
