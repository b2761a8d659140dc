"""Settings of features: how a frozen network embeds images."""

from typing import Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import RUNTIME, Block
from engine.settings.cluster import ClusterSettings
from engine.settings.data import ImagesSettings
from engine.settings.names import RunName
from engine.settings.predict import PredictSettings
from engine.settings.trust import TRUST


class EmbedSettings(Block):
    """How a frozen network embeds the images of a collection."""

    batch_size: int = Field(128, ge=1, le=10**6, description="images per batch", json_schema_extra=RUNTIME)
    backend: Literal[
        "auto", "eager", "channels_last", "frozen", "compiled", "openvino", "bf16", "openvino_bf16", "fp16"
    ] = Field(
        "auto",
        description="way to run the network; auto: the fastest exact one, by measurement. bf16, openvino_bf16 and fp16 change features slightly",
        json_schema_extra={"equal": ["eager", "channels_last", "frozen", "compiled", "openvino"]},
    )
    decode: Literal["full", "scaled", "nvjpeg"] = Field(
        "full",
        description="scaled: JPEGs much larger than needed are decoded at a fraction of their size; nvjpeg: JPEGs are decoded on the GPU; "
        "either changes features slightly",
    )

    @property
    def pass_settings(self) -> PredictSettings:
        """The same as settings of a pass over the images."""
        return PredictSettings(**self.model_dump())


class EmbedJobSettings(Block):
    """`jobs.embed`: the features of a collection, by a frozen network."""

    run: RunName = Field(description="name of the run below STORE/runs/")
    store: str = Field("store", description="folder or URI that holds steps and runs")
    model: str = Field(
        description="network: a model folder (config.json + model.safetensors) or a fitted step of the store (fit-…)"
    )
    img_size: int | None = Field(
        None, ge=1, le=16_384, description="side of the images in pixels (default: the model's own)"
    )
    images: ImagesSettings = Field(description="collection of images")
    embed: EmbedSettings = Field(EmbedSettings(), description="features")
    trust: bool = TRUST
    cluster: ClusterSettings = Field(ClusterSettings(), description="what a step may take of the cluster")

    @model_validator(mode="after")
    def _nothing_is_excluded(self) -> Self:
        if self.images.exclude:
            raise ValueError(
                "images.exclude has no effect: a whole collection is embedded, and a head excludes images when it reads their features. Remove it"
            )
        return self
