"""Settings of a head: what learns on cached features."""

from typing import Literal

from pydantic import Field

from engine.settings.block import Block


class HeadSettings(Block):
    """A classifier on the features of a frozen network."""

    kind: Literal["probe", "prototypes", "knn"] = Field(
        "probe",
        description="probe: multinomial logistic regression; prototypes: the mean of each class, for one to five labels per class;"
        " knn: the nearest labelled images",
    )
    C: float | None = Field(
        None,
        gt=0,
        le=1e9,
        description="kind=probe: inverse strength of the L2 penalty, scikit-learn's C (default: chosen on the validation images, else by"
        " cross-validation of the labelled ones)",
    )
    folds: int = Field(5, ge=2, le=100, description="kind=probe: folds of the cross-validation")
    neighbours: int = Field(20, ge=1, le=10_000, description="kind=knn: number of neighbours that vote")
    temperature: float = Field(
        0.1,
        gt=0,
        le=100,
        description="kind=prototypes, knn: divisor of the cosine similarities, lower is more confident",
    )
    pseudo_weight: float = Field(1.0, gt=0, le=1000, description="weight of a pseudo-label; a true label has 1")
    max_images: int = Field(
        100_000, ge=1, le=10**8, description="most pseudo-labels that a head learns from, evenly spaced over the pool"
    )
