"""What an evaluation comes to: one number with its interval, how many images it stands on, and secondary figures."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from engine.metrics.interval import Interval

ScoreName = Literal["accuracy", "mean_average_precision", "mean_iou"]


@dataclass(frozen=True)
class Score:
    """The score of a model on a labelled set; higher is better. All values are shares in 0..1."""

    name: str
    """What was measured: one of `ScoreName`, or the name that another task gives."""
    value: float
    low: float
    high: float
    images: int
    """Images that the score stands on."""
    unreadable: int = 0
    """Labelled images that could not be read or decoded; the score does not stand on them."""
    per_class: dict[str, float] = field(default_factory=dict)
    """The score of each class that has labelled images, by class name."""
    calibration: float | None = None
    """Expected calibration error; None where the measure has none."""
    details: dict[str, Any] = field(default_factory=dict)
    """Secondary figures as plain values, such as `macro_f1: [value, low, high]`."""
    level: float = 0.95
    """Confidence level of the interval."""

    @property
    def interval(self) -> Interval:
        return Interval(self.value, self.low, self.high)

    @property
    def title(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ").replace(" iou", " IoU")

    def __str__(self) -> str:
        counted = f"{self.images:,} images" + (f", {self.unreadable:,} unreadable" if self.unreadable else "")
        span = f"{100 * self.low:.1f}-{100 * self.high:.1f}"
        return f"{self.title} {100 * self.value:.1f} % ({100 * self.level:g} % CI {span}, {counted})"

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, keys as the fields are called."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Self:
        """The score that `to_json` was given; other keys are ignored. Raises KeyError when one is missing."""
        required = {name: plain[name] for name in ("name", "value", "low", "high", "images")}
        for name in ("value", "low", "high"):
            required[name] = float("nan") if required[name] is None else required[name]  # JSON has no NaN
        optional = ("unreadable", "per_class", "calibration", "details", "level")
        return cls(**required, **{name: plain[name] for name in optional if name in plain})
