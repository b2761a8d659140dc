"""Settings of the jobs that start one verb, or look at one."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from engine.settings.block import RUNTIME, Block
from engine.settings.cluster import ClusterSettings
from engine.settings.data import DataSettings, ImagesSettings
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.settings.names import CORRUPTIONS, TASKS, RunName, check_name, check_or_class, repeated
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings
from engine.settings.trust import TRUST


class PredictJobSettings(Block):
    """`jobs.predict`: a model over a collection."""

    run: RunName = Field(description="name of the run below STORE/runs/")
    store: str = Field("store", description="folder or URI that holds steps and runs")
    model: str = Field(
        description="a fitted step of the store (fit-…) or a model folder (config.json + model.safetensors)"
    )
    images: ImagesSettings = Field(description="collection of images")
    predict: PredictSettings = Field(PredictSettings(), description="predictions")
    trust: bool = TRUST
    cluster: ClusterSettings = Field(ClusterSettings(), description="what a step may take of the cluster")


class ClusterShape(Block):
    """A cluster that is not there yet, for `jobs.plan`."""

    nodes: int = Field(ge=1, le=100_000, description="number of nodes")
    cpus_per_node: int = Field(ge=1, le=4096, description="CPUs per node")
    gpus_per_node: int = Field(0, ge=0, le=64, description="GPUs per node")
    images_per_second: float | None = Field(
        None,
        gt=0,
        le=10**9,
        description="images per second of the model on one GPU (or CPU) of it (default: as measured)",
    )
    price_node_hour: float | None = Field(
        None, ge=0, le=10**9, description="price of a node per hour (default: plan.price_node_hour)"
    )
    gbits_per_node: float | None = Field(
        None, gt=0, le=10**6, description="network into a node in Gbit/s (default: no limit)"
    )

    @model_validator(mode="after")
    def _gpus_have_a_rate(self) -> Self:
        if self.gpus_per_node and self.images_per_second is None:
            raise ValueError("gpus_per_node needs images_per_second, the model's rate on one such GPU")
        return self


class PlanSettings(Block):
    """What `jobs.plan` assumes."""

    sample_images: int = Field(2048, ge=1, le=10**9, description="number of images predicted for the measurement")
    price_node_hour: float = Field(0.0, ge=0, le=10**9, description="price of a node per hour, in any currency")
    selected_share: float = Field(0.1, ge=0, le=1, description="share of the images that selection keeps")
    pool_images: int | None = Field(
        None,
        ge=1,
        le=10**11,
        description="number of images like those of the pool to plan for (default: as many as it has)",
    )
    cluster: ClusterShape | None = Field(
        None, description="another cluster to plan for (default: the present one alone)"
    )


class PlanJobSettings(PredictJobSettings):
    """`jobs.plan`: a config of `jobs.predict` and what the plan assumes."""

    run: RunName = Field("plan", description="name of the run below STORE/runs/")
    plan: PlanSettings = Field(PlanSettings(), description="assumptions of the plan")


class SelectJobSettings(Block):
    """`jobs.select`: pseudo-labels from stored predictions."""

    run: RunName = Field(description="name of the run below STORE/runs/")
    store: str = Field("store", description="folder or URI that holds steps and runs")
    predictions: str = Field(description="a predict step of the store (predict-…)")
    select: SelectSettings = Field(SelectSettings(), description="selection of pseudo-labels")
    known: list[str] = Field(
        default_factory=list, description="labelled and evaluation collections, for select.near_duplicates"
    )
    cluster: ClusterSettings = Field(ClusterSettings(), description="what a step may take of the cluster")


class SoftSettings(Block):
    """A table of soft labels (`engine.labels.soft_tables` says which files it may be)."""

    table: str = Field(description="npy, CSV, Arrow or Parquet file", json_schema_extra=RUNTIME)
    kind: Literal["distribution", "logits", "labels"] = Field(
        "distribution",
        description="distribution: probabilities that sum to 1; labels: an image may have several, each with its own probability (sigmoid)",
    )
    top: int | None = Field(
        None,
        ge=1,
        le=10**7,
        description="number of classes kept of a distribution, the rest as residual mass (default: all)",
    )


class FitJobSettings(Block):
    """`jobs.fit`: a model from true labels and, when a selection is given, pseudo-labels."""

    run: RunName = Field(description="name of the run below STORE/runs/")
    store: str = Field("store", description="folder or URI that holds steps and runs")
    data: DataSettings = Field(description="collections to train on")
    model: ModelSettings = Field(description="network")
    fit: FitSettings = Field(description="training")
    pseudo: str | None = Field(
        None, description="select step of the store (select-…) whose images are those of data.pool (default: none)"
    )
    soft: SoftSettings | None = Field(
        None, description="soft labels of images of data.pool from another tool, the stream soft (default: none)"
    )
    init: str | None = Field(None, description="fitted step or model folder to start from (default: random weights)")
    trust: bool = TRUST
    cluster: ClusterSettings = Field(ClusterSettings(), description="what a step may take of the cluster")

    @model_validator(mode="after")
    def _streams_are_those_given(self) -> Self:
        given = {"pseudo": self.pseudo is not None, "soft": self.soft is not None, "pool": self.data.pool is not None}
        for name, setting in (("pseudo", "pseudo"), ("soft", "soft.table"), ("pool", "data.pool")):
            if name in self.fit.batch and not given[name]:
                raise ValueError(
                    f"fit.batch names the stream {name}, which needs {setting}. Set it, or take {name} out."
                )
        for name in ("pseudo", "soft"):
            if given[name] and name not in self.fit.batch:
                raise ValueError(
                    f"{name} is set, but fit.batch={self.fit.batch} has no images of it. Add {name}: its images per step."
                )
            if given[name] and not given["pool"]:
                raise ValueError(f"{name} has targets of images of data.pool. Set data.pool.")
        if unknown := sorted(self.fit.batch.keys() - {"labelled", *given}):
            raise ValueError(f"fit.batch names unknown streams {unknown}; this job has labelled, pseudo, soft and pool")
        return self


class EvaluateJobSettings(PredictJobSettings):
    """`jobs.evaluate`: the score of a model on a labelled collection."""

    task: str = Field(
        "classify",
        description="classify: one class per image; multilabel: any number of them; segment: one per pixel; module:Class for another",
    )
    masks: str | None = Field(None, description="task=segment: masks of the images, with their names (default: none)")
    soft: SoftSettings | None = Field(
        None,
        description="table of soft labels to compare with: KL of distributions, average precision of labels (default: class labels)",
    )
    corruptions: list[str] = Field(
        default_factory=list,
        description="families of common corruptions: fog, jpeg_compression …, or [all]",
    )
    severities: list[Annotated[int, Field(ge=1, le=5)]] = Field(
        default=[1, 2, 3, 4, 5], min_length=1, description="severities of the corruptions, 1 to 5"
    )

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, name: str) -> str:
        return check_or_class("task", name, TASKS)

    @field_validator("corruptions")
    @classmethod
    def _corruptions_are_known(cls, names: list[str]) -> list[str]:
        return [check_name("corruption", name, ("all", *CORRUPTIONS)) for name in names]

    @field_validator("severities")
    @classmethod
    def _each_once(cls, severities: list[int]) -> list[int]:
        if twice := repeated(severities):
            raise ValueError(f"{twice[0]} more than once: name each once")
        return severities

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        self.predict.check_task(self.task)
        return self
