"""The bands of a scene as a network sees them: one or three of them, scaled to 0-255."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.geo.extra import geo_module
from engine.geo.scene import CACHE, Scene, open_raster
from engine.settings.geo import BandSettings

USUAL = (1.0, 99.0)
"""Percentiles of bands that are not 8-bit, where no others are set."""
SAMPLE = 1024
"""Side in pixels of the thinned-out scene that percentiles are taken from."""

Pixels = npt.NDArray[np.uint8]
Valid = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BandScaling:
    """Bands, counted from 1, and the values of each that become 0 and 255; no limits: 8-bit values stay as they are."""

    bands: tuple[int, ...]
    limits: tuple[tuple[float, float], ...] | None = None

    def apply(self, values: npt.NDArray[Any]) -> Pixels:
        """uint8 (h, w, B) of values (B, h, w), rounded to the nearest level; what is not a number is 0."""
        if self.limits is None:
            return np.ascontiguousarray(values.transpose(1, 2, 0))
        low, high = np.array(self.limits, np.float32).T[:, :, None, None]
        levels = (values.astype(np.float32) - low) * (255 / (high - low))
        rounded = np.nan_to_num(levels, nan=0.0, posinf=255.0, neginf=0.0).clip(0, 255) + 0.5
        return np.ascontiguousarray(rounded.astype(np.uint8).transpose(1, 2, 0))


def choose_bands(scene: Scene, settings: BandSettings) -> BandScaling:
    """The bands and limits that `settings` mean for a scene. Raises ValueError for bands that it has not, and where the choice is open."""
    have = len(scene.dtypes)
    bands = tuple(settings.bands or ())
    if not bands:
        if have not in (1, 3):
            raise ValueError(
                f"{scene.path}: {have} bands, and which of them are red, green and blue is not declared. Set bands.bands,"
                " e.g. bands.bands=[1,2,3]."
            )
        bands = tuple(range(1, have + 1))
    if max(bands) > have:
        raise ValueError(
            f"{scene.path}: bands.bands names band {max(bands)}, and the scene has {have}. Correct bands.bands."
        )
    if settings.scale is not None:
        if len(settings.scale) not in (1, len(bands)):
            raise ValueError(
                f"{scene.path}: {len(settings.scale)} scales for {len(bands)} bands. Give bands.scale one, or one per band."
            )
        return BandScaling(bands, tuple(settings.scale * (len(bands) // len(settings.scale))))
    if settings.percentiles is None and all(scene.dtypes[band - 1] == "uint8" for band in bands):
        return BandScaling(bands)
    return BandScaling(bands, _percentiles(scene, bands, settings.percentiles or USUAL))


def _percentiles(scene: Scene, bands: tuple[int, ...], wanted: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """Two percentiles of each band, of every n-th pixel of the scene. Raises ValueError for a scene without data."""
    shape = (min(SAMPLE, scene.height), min(SAMPLE, scene.width))
    limits = []
    with geo_module("rasterio").Env(GDAL_CACHEMAX=CACHE), open_raster(scene.path) as raster:
        for band in bands:
            sample = raster.read(band, out_shape=shape, masked=True).compressed().astype(np.float64)
            sample = sample[np.isfinite(sample)]
            if not sample.size:
                raise ValueError(f"{scene.path}: band {band} has no pixel with data. Remove the scene.")
            low, high = np.percentile(sample, wanted)
            limits.append((float(low), float(max(high, low + 1e-6 * max(1.0, abs(low))))))
    return tuple(limits)


def read_window(raster: Any, scaling: BandScaling, box: tuple[int, int, int, int]) -> tuple[Pixels, Valid]:
    """Pixels uint8 (h, w, B), 0 without data, and whether each has data (h, w), of the window left, top, width, height inside an open raster."""
    window = geo_module("rasterio.windows").Window(*box)
    pixels = scaling.apply(raster.read(list(scaling.bands), window=window))
    valid = read_valid(raster, box)
    pixels[~valid] = 0
    return pixels, valid


def read_valid(raster: Any, box: tuple[int, int, int, int]) -> Valid:
    """Whether the pixels (h, w) of the window left, top, width, height of an open raster have data."""
    valid: Valid = raster.dataset_mask(window=geo_module("rasterio.windows").Window(*box)) > 0
    return valid
