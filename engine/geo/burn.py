"""Features to masks on a scene's grid, in bands of rows, so that memory does not grow with the height of the scene.

A pixel has the class of an area that its centre lies in. Ignored bands never cover what is drawn, whichever rule it belongs to.
"""

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine.geo.extra import geo_module
from engine.geo.scene import CACHE, Scene, open_raster
from engine.geo.vectors import DrawnFeatures, Geometries
from engine.ground.record import canonical
from engine.tables.schema import IGNORE

ROWS = 1024
"""Rows that are drawn at once, a multiple of BLOCK."""
BLOCK = 256
"""Side of the blocks of a written mask."""

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Burner:
    """Draws the mask of one scene."""

    layers: Sequence[DrawnFeatures]
    """In drawing order, later ones on top."""
    absent: Literal["negative", "ignore"] = "negative"

    def rows(self, first: int, count: int, width: int) -> Mask:
        """uint8 (count, width): the mask's rows from `first`."""
        shapely = geo_module("shapely")
        strip = shapely.box(0, first, width, first + count)
        painted: list[tuple[Any, int]] = []
        for layer in self.layers:
            if layer.bands is not None:
                painted += [(one, IGNORE) for one in _on(layer.bands, strip)]
        for layer in self.layers:
            painted += [(one, layer.value) for one in _on(layer.areas, strip)]
        empty = 0 if self.absent == "negative" else IGNORE
        if not painted:
            return np.full((count, width), empty, np.uint8)
        shift = geo_module("rasterio").Affine.translation(0, first)
        drawn: Mask = geo_module("rasterio.features").rasterize(
            painted, (count, width), fill=empty, transform=shift, dtype="uint8"
        )
        return drawn


def _on(geometries: Geometries, strip: Any) -> Geometries:
    """Those whose boxes meet the strip, in their order."""
    shapely = geo_module("shapely")
    left, top, right, bottom = shapely.bounds(geometries).T if len(geometries) else np.empty((4, 0))
    x0, y0, x1, y1 = strip.bounds
    return geometries[(left <= x1) & (right >= x0) & (top <= y1) & (bottom >= y0)]


def write_mask(scene: Scene, burner: Burner, classes: Sequence[str], path: Path) -> npt.NDArray[np.int64]:
    """Write the mask of a scene as a GeoTIFF, pixels without data ignored. Returns the pixels (256,) of each value."""
    rasterio = geo_module("rasterio")
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.tif")
    counts = np.zeros(256, np.int64)
    options = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "bigtiff": "if_safer"}
    shape = {"width": scene.width, "height": scene.height, "count": 1, "dtype": "uint8"}
    grid = {"crs": scene.crs, "transform": rasterio.Affine(*scene.affine), "nodata": IGNORE}
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE),
            open_raster(scene.path) as source,
            rasterio.open(temporary, "w", driver="GTiff", **shape, **grid, **options) as sink,
        ):
            sink.update_tags(classes=canonical(list(classes)))
            for first in range(0, scene.height, ROWS):
                rows = min(ROWS, scene.height - first)
                window = geo_module("rasterio.windows").Window(0, first, scene.width, rows)
                mask = burner.rows(first, rows, scene.width)
                if scene.has_holes:
                    mask[source.dataset_mask(window=window) == 0] = IGNORE
                counts += count_values(mask)
                sink.write(mask, 1, window=window)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return counts


def count_values(mask: Mask) -> npt.NDArray[np.int64]:
    """Pixels (256,) of each value of a mask (h, w), a row at a time: numpy counts in 8 bytes per pixel."""
    counts = np.zeros(256, np.int64)
    for row in mask:
        counts += np.bincount(row, minlength=256)
    return counts
