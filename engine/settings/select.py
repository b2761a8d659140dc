"""Settings of a selection: which predictions become pseudo-labels, and what is refused."""

from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import Block

RankBy = Literal["max_probability", "margin", "entropy", "energy"]


class SelectSettings(Block):
    """Which predictions become pseudo-labels."""

    score: RankBy = Field(
        "max_probability",
        description="margin: probability of the best class minus that of the second; entropy: 1 - H / log C; energy: log-sum-exp of the"
        " logits, no probability. entropy and energy must have been stored with predict.further",
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
    prior: dict[str, float] = Field(
        default_factory=dict,
        description="weights of the classes by name: quotas are in their proportion, per_class on average; balance=truncate cuts to it",
    )
    classes_per_image: int = Field(1, ge=1, description="P: an image may be kept for up to its P best classes")
    balance: Literal["none", "truncate", "duplicate", "published"] = Field(
        "none",
        description="truncate to the smallest class, duplicate up to K by count, or thin at random to about K as Noisy Student's program did",
    )
    targets: Literal["hard", "soft"] = "soft"
    temperature: float = Field(
        1.0,
        gt=0,
        description="soft targets are p^(1/temperature), normalised over all classes: predict.log_sum_exp or all classes must be stored",
    )
    exclude_keys: str | None = Field(None, description="text file of keys, one a line: such images are left out")
    near_duplicates: int | None = Field(
        None,
        ge=0,
        le=16,
        description="images whose perceptual hashes differ in at most this many of 64 bits are one: the best-scored of the pool is kept,"
        " those near a labelled or evaluation image are left out; 8 is usual",
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
        lambda s: s.score != "max_probability" and s.classes_per_image > 1,
        "scores other than max_probability rank the best class of an image only: set classes_per_image=1, or score=max_probability",
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
        lambda s: s.score != "max_probability" and (s.cut not in ("fixed", "quantile") or s.balance == "published"),
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
        lambda s: s.score == "energy" and (s.threshold > 0 or bool(s.thresholds)),
        "score=energy is no probability, so no threshold cuts it: leave threshold and thresholds out, and set per_class, or cut=quantile and share",
    ),
    (
        lambda s: bool(s.prior) and (s.balance == "published" or (s.per_class is None and s.balance != "truncate")),
        "prior divides per_class x C among the classes: set per_class, or balance=truncate to keep as much as the scarcest class allows",
    ),
    (
        lambda s: any(weight < 0 for weight in s.prior.values()) or (bool(s.prior) and not any(s.prior.values())),
        "prior holds weights of classes: none below 0, and at least one above",
    ),
    (
        lambda s: s.cut == "softmatch" and s.is_bounded,
        "cut=softmatch weighs images and cuts none: leave out at_least and at_most, or take another cut",
    ),
]
"""Combinations that mean nothing, and what to set instead."""
