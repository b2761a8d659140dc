"""Settings of networks."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from engine.settings.block import Block
from engine.settings.names import check_network

Share = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=1e-3, le=1)]


class ModelSettings(Block):
    """A timm architecture and its regularisation."""

    model: str = Field(description="name of a timm architecture or of a CIFAR network of this engine")
    img_size: int = Field(224, ge=1, le=16_384, description="side of the images in pixels")
    drop: float = Field(0.0, ge=0, lt=1, description="dropout before the classifier")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="stochastic depth: drop rate at the last block, linear in depth"
    )
    pretrained: bool = Field(False, description="start from timm's pretrained weights")
    model_args: dict[str, Any] = Field(default_factory=dict, description="other arguments of timm.create_model")
    decoder: Literal["unet"] | None = Field(
        None,
        description="what follows the feature maps; unet: a class for each pixel (default: a classifier of images)",
    )
    decoder_width: int = Field(32, ge=1, le=4096, description="channels of the decoder at full size")
    crop_pct: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the shorter side that the centre crop shows, in training without noise.scale as in evaluation"
        " (default: timm's of the architecture)",
    )
    test_img_size: int | None = Field(
        None, ge=1, le=16_384, description="side of the images in pixels when the model predicts (default: img_size)"
    )
    mean: tuple[Share, Share, Share] | None = Field(
        None, description="mean of the pixels in 0-1, per channel (default: timm's of the architecture)"
    )
    std: tuple[Spread, Spread, Spread] | None = Field(
        None, description="standard deviation of the pixels in 0-1, per channel (default: timm's of the architecture)"
    )

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, name: str) -> str:
        return check_network(name)

    @property
    def architecture(self) -> tuple[str, dict[str, Any]]:
        """What two models have alike when one can start from the other's weights; image size and regularisation may differ."""
        return self.model, self.model_args


class ModelsSettings(Block):
    """The networks of a run."""

    teacher: ModelSettings = Field(description="network of the first teacher")
    student: ModelSettings | None = Field(None, description="network of the students (default: the teacher's)")
