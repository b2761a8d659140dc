"""What a magnitude means: the operations of three published RandAugments, and the argument of each at a magnitude M; s = M / 10.

                  torchvision              timm ("increasing")      tf (google-research/noisystudent, meta_pseudo_labels)
    Rotate        ±30 s degrees            ±30 s                    ±30 s
    ShearX, Y     ±0.3 s                   ±0.3 s                   ±0.3 s
    TranslateX, Y ±0.45 s of the side      ±0.45 s of the side      ±`translate` s pixels, whatever the side
    Brightness, Color, Contrast, Sharpness
                  1 ± 0.9 s, at least 0.1  1 ± 0.9 s, at least 0.1  0.1 + 1.8 s, one-sided
    Posterize     8 - 4 s bits kept        4 - 4 s bits             4 s bits: more is weaker
    Solarize      from 256 (1 - s)         from 256 (1 - s)         from 256 s: more is weaker
    SolarizeAdd   -                        110 s below 128          110 s below 128
    Cutout        -                        -                        a square of half side `cutout` s
    AutoContrast, Equalize                 in all three
    Identity      yes                      -                        -
    Invert        -                        yes                      yes
    applied       always                   with probability 0.5     always (meta_pseudo_labels: 0.2 to 0.8, which is 0.5)

torchvision is that library's table (the paper's 14 operations) with its 31 bins replaced by M / 10. Beyond M = 10 its rotation, shear and factors
continue; translation, Posterize and Solarize stay at full scale. timm ends at M = 10. tf continues throughout, as the programs do (27 for B7);
where TensorFlow's own result is not defined - 10 of 8 bits, values from 691 of 255 - the image stays as it is. One bit is always kept: Pillow refuses
timm's 0 at M = 10. Outside the image is grey 128, and rotation and shear are bilinear in all three, about the centre; timm draws bilinear or bicubic
and shears about a corner, TensorFlow takes the nearest pixel.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
ScaleName = Literal["torchvision", "timm", "tf"]

OPS = (
    "AutoContrast",
    "Equalize",
    "Solarize",
    "Posterize",
    "Contrast",
    "Brightness",
    "Invert",
    "SolarizeAdd",
    "Rotate",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Color",
    "Sharpness",
    "Identity",
    "Cutout",
)
(
    AUTOCONTRAST,
    EQUALIZE,
    SOLARIZE,
    POSTERIZE,
    CONTRAST,
    BRIGHTNESS,
    INVERT,
    SOLARIZE_ADD,
    ROTATE,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
    COLOR,
    SHARPNESS,
    IDENTITY,
    CUTOUT,
) = range(17)

_COMMON: tuple[int, ...] = tuple(op for op in range(IDENTITY) if op not in (INVERT, SOLARIZE_ADD))
OPERATIONS: dict[ScaleName, tuple[int, ...]] = {
    "torchvision": (*_COMMON, IDENTITY),
    "timm": (*_COMMON, INVERT, SOLARIZE_ADD),
    "tf": (*_COMMON, INVERT, SOLARIZE_ADD, CUTOUT),
}
"""The operations that an image draws from, uniformly and with replacement."""
PROBABILITY: dict[ScaleName, float] = {"torchvision": 1.0, "timm": 0.5, "tf": 1.0}
"""Probability that a drawn operation is applied, where nothing else is asked for."""


@dataclass(frozen=True)
class Scale:
    """One of the three tables. `translate`, `cutout`: pixels at M = 10, of tf alone; 100 and 40 are Noisy Student's, 0 leaves Cutout out."""

    name: ScaleName = "torchvision"
    translate: float = 100.0
    cutout: float = 40.0

    @property
    def operations(self) -> tuple[int, ...]:
        """Indices in OPS."""
        found = OPERATIONS[self.name]
        return found[:-1] if self.name == "tf" and self.cutout == 0 else found

    def arguments(self, ops: npt.NDArray[np.int64], magnitudes: Floats, signs: Floats, side: int) -> Floats:
        """The argument of each operation (B,): degrees, slope, pixels, factor, bits kept, first value inverted, value added, or half side.

        `ops`: indices in OPS; `signs`: ±1 for operations that go both ways; `side`: of the images, pixels.
        """
        strength = magnitudes / 10 if self.name != "timm" else np.minimum(magnitudes, 10) / 10
        full = np.minimum(strength, 1.0)
        found = np.zeros(len(ops))

        def put(which: tuple[int, ...], values: Floats) -> None:
            chosen = np.isin(ops, which)
            found[chosen] = values[chosen]

        put((ROTATE,), 30 * strength * signs)
        put((SHEAR_X, SHEAR_Y), 0.3 * strength * signs)
        enhancements = (CONTRAST, BRIGHTNESS, COLOR, SHARPNESS)
        if self.name == "tf":
            put((TRANSLATE_X, TRANSLATE_Y), np.round(self.translate * strength * signs))
            put(enhancements, 0.1 + 1.8 * strength)
            put((POSTERIZE,), np.clip(np.floor(4 * strength), 1, 8))
            put((SOLARIZE,), np.floor(256 * strength))
            put((CUTOUT,), np.floor(self.cutout * strength))
        else:
            put((TRANSLATE_X, TRANSLATE_Y), np.round(0.45 * full * signs * side))
            put(enhancements, np.maximum(0.1, 1 + 0.9 * strength * signs))
            put(
                (POSTERIZE,),
                8 - np.round(4 * full) if self.name == "torchvision" else np.maximum(1, 4 - np.floor(4 * full)),
            )
            put((SOLARIZE,), 256 - np.floor(256 * full))
        put((SOLARIZE_ADD,), np.minimum(np.floor(110 * strength), 128 if self.name == "timm" else 255))
        return found


TORCHVISION = Scale()
