"""The noise that Noisy Student's program gives an EfficientNet of each size (google-research/noisystudent).

RandAugment's magnitude 27 of B7 goes beyond its usual scale of 10; what becomes of each operation there stands in `engine.images.augment_levels`.
"""

import re
from dataclasses import dataclass
from typing import Any

from engine.settings.fit import FitSettings, NoiseSettings
from engine.settings.model import ModelSettings

RANDAUGMENT: dict[str, Any] = {"aa_num_ops": 2, "aa_scale": "tf"}
"""Two operations of the program's own table, its Cutout among them."""
SURVIVAL_DROP = 0.2
"""Stochastic depth of every size: 0.2 at the last block, linear in depth."""


@dataclass(frozen=True)
class Published:
    """What one size is trained with."""

    img_size: int
    drop: float
    magnitude: float
    """Of RandAugment's two operations; 0 is none."""
    ratio: int
    """Pseudo-labelled images for each labelled one."""


SIZES = {
    "b0": Published(224, 0.2, 0, 1),
    "b1": Published(240, 0.2, 0, 3),
    "b2": Published(260, 0.3, 6, 3),
    "b3": Published(300, 0.3, 12, 3),
    "b4": Published(380, 0.4, 15, 3),
    "b5": Published(456, 0.4, 18, 3),
    "b6": Published(528, 0.5, 24, 3),
    "b7": Published(600, 0.5, 27, 3),
    "l2": Published(475, 0.5, 27, 14),
}


def centre_share(img_size: int) -> float:
    """Share of the shorter side that the program's centre crop shows: S / (S + 32)."""
    return img_size / (img_size + 32)


def published(model: ModelSettings, fit: FitSettings) -> tuple[ModelSettings, FitSettings]:
    """Both with what is not set filled in as published for the model's size: image size, dropout, depth, noise, pseudo-labelled batch.

    Raises ValueError for another family than EfficientNet.
    """
    found = re.match(r"(?:tf_)?efficientnet_(b[0-7]|l2)(?![0-9])", model.model)
    if found is None:
        raise ValueError(
            f"published_noise is of EfficientNets B0 to B7 and L2, and the student is {model.model}:"
            " set fits.student.noise and models.student.drop yourself"
        )
    size = SIZES[found.group(1)]
    noise = NoiseSettings(
        scale=(0.08, 1.0), **(RANDAUGMENT | {"aa_magnitude": size.magnitude} if size.magnitude else {})
    )
    side = model.img_size if "img_size" in model.model_fields_set else size.img_size
    wanted = {"crop_pct": centre_share(side), "img_size": size.img_size, "drop": size.drop, "drop_path": SURVIVAL_DROP}
    streams = {"labelled": fit.batch["labelled"], "pseudo": size.ratio * fit.batch["labelled"]} | fit.batch
    return (
        model.model_copy(update={name: value for name, value in wanted.items() if name not in model.model_fields_set}),
        fit.model_copy(update={"batch": streams, "noise": {"labelled": noise, "pseudo": noise} | fit.noise}),
    )
