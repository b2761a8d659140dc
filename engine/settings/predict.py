"""Settings of a prediction pass."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from engine.settings.block import RUNTIME, Block
from engine.tables.schema import log_sum_exp


class PredictSettings(Block):
    """How a teacher predicts the pool."""

    top_p: int = Field(8, ge=1, le=10**6, description="number of classes stored per image")
    batch_size: int = Field(128, ge=1, le=10**6, description="images per batch", json_schema_extra=RUNTIME)
    backend: Literal[
        "auto", "eager", "channels_last", "frozen", "compiled", "openvino", "bf16", "openvino_bf16", "fp16", "int8"
    ] = Field(
        "auto",
        description="way to run the network; auto: the fastest exact one, by measurement. bf16 (on CPUs with AMX fastest as openvino_bf16), "
        "fp16 and int8 change predictions slightly",
        json_schema_extra={"equal": ["eager", "channels_last", "frozen", "compiled", "openvino"]},
    )
    views: Literal["one", "flip"] = Field(
        "one", description="flip: probabilities averaged over the image and its mirror"
    )
    decode: Literal["full", "scaled", "nvjpeg"] = Field(
        "full",
        description="scaled: JPEGs much larger than needed are decoded at a fraction of their size; nvjpeg: JPEGs are decoded on the GPU; "
        "either changes predictions slightly",
    )
    calibrate: bool = Field(
        False,
        description="the temperature is fitted on the validation images before the pool is predicted (jobs.self_train)",
        json_schema_extra=RUNTIME,
    )
    temperature: float = Field(
        1.0, gt=0, le=1000, description="divisor of the logits; a fitted one makes scores probabilities"
    )
    extra_scores: list[Literal["entropy", "energy"]] = Field(
        default_factory=list, description="extra scores to store for select.score, 2 bytes per image each"
    )
    log_sum_exp: list[Annotated[float, Field(gt=0, le=1000)]] = Field(
        default_factory=list,
        description="temperatures of exact soft targets, 2 bytes per image each, e.g. [0.5], for select.temperature",
    )
    pixel_confidence: float = Field(
        0.8,
        ge=0,
        lt=1,
        description="task=segment: probability above which a pixel counts as confident; their share is the score of an image",
    )
    activation: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="sigmoid: an image may have several labels, each class has a probability of its own"
    )

    @field_validator("extra_scores", "log_sum_exp")
    @classmethod
    def _in_one_order(cls, listed: list[Any]) -> list[Any]:
        return sorted(set(listed))  # columns have one order, so another order is the same setting

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.activation == "sigmoid" and self.columns:
            raise ValueError(
                "extra_scores and log_sum_exp are of one distribution over the classes, and activation=sigmoid has one a class: leave one out"
            )
        if self.activation == "sigmoid" and self.calibrate:
            raise ValueError(
                "calibrate fits the temperature of a softmax, and activation=sigmoid has none: leave out one"
            )
        return self

    def check_task(self, task: str) -> None:
        """Raise ValueError when predictions for `task` would not be those of its one class per image."""
        if task == "classify" and self.activation == "sigmoid":
            raise ValueError(
                "predict.activation=sigmoid gives several labels per image, and task=classify learns and measures one:"
                " set task=multilabel, or leave it out"
            )

    def for_evaluation(self) -> Self:
        """For measures of the model itself: no extra scores, and no int8, which is calibrated on the pool that it predicts and on nothing else."""
        backend = "auto" if self.backend == "int8" else self.backend
        return self.model_copy(update={"extra_scores": [], "log_sum_exp": [], "backend": backend})

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of extra scores of the predictions."""
        names = [*self.extra_scores, *(log_sum_exp(one) for one in self.log_sum_exp)]
        return tuple(sorted(set(names)))
