"""Settings of a selection: which predictions become pseudo-labels, and what is refused."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.settings.block import RUNTIME, Block, SettingsError
from engine.tables.schema import log_sum_exp

RankBy = Literal["max_probability", "margin", "entropy", "energy"]


class SelectSettings(Block):
    """Which predictions become pseudo-labels."""

    score: RankBy = Field(
        "max_probability",
        description="margin: probability of the best class minus that of the second; entropy: 1 - H / log C; energy: log-sum-exp of the"
        " logits, no probability. entropy and energy must have been stored with predict.extra_scores",
    )
    threshold: float = Field(0.0, ge=0, lt=1, description="probability that a score must exceed, strictly")
    thresholds: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        default_factory=dict, description="thresholds of single classes by name (default: `threshold`)"
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
        description="quantile: share of each class's images, the best; adamatch: share of the mean confidence on labelled images (default: 0.9)",
    )
    at_least: float = Field(0.0, ge=0, le=1, description="smallest accepted share of all images: cuts move down")
    at_most: float = Field(1.0, ge=0, le=1, description="largest accepted share of all images: cuts move up")
    per_class: int | None = Field(
        None, ge=1, le=10**10, description="K: most images kept per class (default: no limit)"
    )
    prior: dict[str, Annotated[float, Field(ge=0, le=10**11)]] = Field(
        default_factory=dict,
        description="weights of the classes by name: quotas are in their proportion, per_class on average; balance=truncate cuts to it",
    )
    classes_per_image: int = Field(
        1, ge=1, le=10**6, description="P: number of best classes for which an image may be kept"
    )
    balance: Literal["none", "truncate", "duplicate", "published"] = Field(
        "none",
        description="truncate to the smallest class, duplicate up to K by count, or thin at random to about K as Noisy Student's program did",
    )
    targets: Literal["hard", "soft"] = Field("soft", description="pseudo-labels: one class, or a distribution")
    temperature: float = Field(
        1.0,
        gt=0,
        le=1000,
        description="soft targets are p^(1/temperature), normalised over all classes: predict.log_sum_exp or all classes must be stored",
    )
    pixel_threshold: float = Field(
        0.0, ge=0, lt=1, description="task=segment: probability below which a pixel of a pseudo-mask is ignored"
    )
    exclude_keys: str | None = Field(
        None,
        description="text file of keys of excluded images, one per line (default: none)",
        json_schema_extra=RUNTIME,
    )
    near_duplicates: int | None = Field(
        None,
        ge=0,
        le=16,
        description="most of 64 bits in which perceptual hashes of near duplicates differ: of these the best-scored of the pool is kept, and those"
        " near a labelled or evaluation image are excluded; 8 is usual (default: none are looked for)",
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


def check_several_labels(select: SelectSettings) -> None:
    """Raise SettingsError with the remedy for what means nothing when each class has a probability of its own (sigmoid)."""
    if select.targets == "soft":
        raise SettingsError(
            "select.targets=soft makes one distribution over the classes, and sigmoid predictions have none: set select.targets=hard"
        )
    if select.cut == "adamatch":
        raise SettingsError(
            "select.cut=adamatch compares the confidence of one class per image, and sigmoid predictions have several: take another cut"
        )
    if select.score != "max_probability":
        raise SettingsError(
            f"select.score={select.score} is of one distribution over the classes, and sigmoid predictions have none: take max_probability"
        )


def check_stored(
    select: SelectSettings, top_p: int, columns: Sequence[str], classes: Sequence[str] | None = None
) -> None:
    """Raise ValueError with the remedy when a selection needs what its predictions do not hold, before they are made or read.

    `top_p`, `columns`: number of classes and extra columns stored per image; `classes`: names of the classes, None while they are unknown.
    """
    score, temperature = select.score, select.temperature
    if score in ("entropy", "energy") and score not in columns:
        raise ValueError(
            f"select.score={score} is not stored with the predictions: set predict.extra_scores=[{score}], or select.score=max_probability"
        )
    if score == "margin" and top_p < 2:
        raise ValueError(
            "select.score=margin needs two classes per image, and predict.top_p=1 stores one: set predict.top_p=2 or more"
        )
    if select.classes_per_image > top_p:
        raise ValueError(
            f"select.classes_per_image={select.classes_per_image} is more than the {top_p} classes stored per image:"
            f" lower it, or set predict.top_p={select.classes_per_image}"
        )
    if classes is None:
        return
    if select.classes_per_image > len(classes):
        raise ValueError(
            f"select.classes_per_image={select.classes_per_image} is more than the {len(classes)} classes there are: lower it"
        )
    is_sharpened = select.targets == "soft" and temperature != 1
    if is_sharpened and top_p < len(classes) and log_sum_exp(temperature) not in columns:
        raise ValueError(
            f"select.temperature={temperature:g} needs the sum over all {len(classes)} classes, and predict.top_p={top_p} are stored without it:"
            f" set predict.log_sum_exp=[{temperature:g}] or predict.top_p={len(classes)}, or select.temperature=1"
        )
    for setting, names in (("thresholds", select.thresholds), ("prior", select.prior)):
        if unknown := [name for name in names if name not in classes]:
            known = ", ".join(classes[:10])
            raise ValueError(f"select.{setting}: no class is called {', '.join(unknown)}; the classes are {known} …")
    if select.prior and (missing := [name for name in classes if name not in select.prior]):
        raise ValueError(
            f"select.prior: {', '.join(missing[:10])} has no weight; give every class its weight, 0 for one that is not wanted"
        )
