"""Settings of the jobs that start one verb, or look at one."""

from typing import Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import Block
from engine.settings.run import (
    ClusterSettings,
    DataSettings,
    FitSettings,
    ImagesSettings,
    ModelSettings,
    PredictSettings,
    SelectSettings,
)


class PredictJobSettings(Block):
    """`jobs.predict`: a model over a collection."""

    run: str
    store: str = "store"
    model: str = Field(
        description="a fitted step of the store (fit-…) or a model folder (config.json + model.safetensors)"
    )
    images: ImagesSettings
    predict: PredictSettings = PredictSettings()
    cluster: ClusterSettings = ClusterSettings()


class ClusterShape(Block):
    """A cluster that is not there yet, for `jobs.plan`."""

    nodes: int = Field(ge=1)
    cpus_per_node: int = Field(ge=1)
    gpus_per_node: int = Field(0, ge=0)
    images_per_second: float | None = Field(
        None, gt=0, description="of the model on one of its GPUs (or CPUs); those of the measurement when not given"
    )
    price_node_hour: float | None = Field(None, ge=0, description="plan.price_node_hour when not given")
    gbits_per_node: float | None = Field(None, gt=0, description="network into a node; no limit when not given")

    @model_validator(mode="after")
    def _gpus_have_a_rate(self) -> Self:
        if self.gpus_per_node and self.images_per_second is None:
            raise ValueError("gpus_per_node needs images_per_second, the model's rate on one such GPU")
        return self


class PlanSettings(Block):
    """What `jobs.plan` assumes."""

    sample_images: int = Field(2048, ge=1, description="images that are labelled for the measurement")
    price_node_hour: float = Field(0.0, ge=0)
    selected_share: float = Field(0.1, ge=0, le=1, description="share of the images that selection will keep")
    pool_images: int | None = Field(
        None, ge=1, description="plan for so many images like those of the pool; those it has when not given"
    )
    cluster: ClusterShape | None = Field(None, description="a bigger cluster to plan for beside the present one")


class PlanJobSettings(PredictJobSettings):
    """`jobs.plan`: a config of `jobs.predict` and what the plan assumes."""

    run: str = "plan"
    plan: PlanSettings = PlanSettings()


class SelectJobSettings(Block):
    """`jobs.select`: pseudo-labels from stored predictions."""

    run: str
    store: str = "store"
    predictions: str = Field(description="a predict step of the store (predict-…)")
    select: SelectSettings = SelectSettings()
    known: list[str] = Field(
        default_factory=list, description="labelled and evaluation collections, for select.near_duplicates"
    )
    cluster: ClusterSettings = ClusterSettings()


class SoftSettings(Block):
    """A table of soft labels (`engine.labels.soft_tables` says which files it may be)."""

    table: str = Field(description="npy, CSV, Arrow or Parquet file")
    kind: Literal["distribution", "logits", "labels"] = Field(
        "distribution",
        description="distribution: probabilities that sum to 1; labels: an image may have several, each with its own probability (sigmoid)",
    )
    top: int | None = Field(None, ge=1, description="keep so many classes of a distribution, the rest as residual mass")


class FitJobSettings(Block):
    """`jobs.fit`: a model from true labels and, when a selection is given, pseudo-labels."""

    run: str
    store: str = "store"
    data: DataSettings
    model: ModelSettings
    fit: FitSettings
    pseudo: str | None = Field(
        None, description="a select step of the store (select-…) whose images are those of data.pool"
    )
    soft: SoftSettings | None = Field(
        None, description="soft labels of images of data.pool from another tool; the stream is called soft"
    )
    init: str | None = Field(None, description="a fitted step or model folder to start from")
    cluster: ClusterSettings = ClusterSettings()


class EvaluateJobSettings(PredictJobSettings):
    """`jobs.evaluate`: accuracy of a model on a labelled collection."""

    soft: SoftSettings | None = Field(
        None,
        description="compare with a table of soft labels instead: KL of distributions, average precision of labels",
    )
    corruptions: list[str] = Field(
        default_factory=list,
        description="families of common corruptions to look at, too: fog, jpeg_compression …, or [all]",
    )
    severities: list[int] = Field(default=[1, 2, 3, 4, 5], min_length=1, description="of corruptions, 1 to 5")
