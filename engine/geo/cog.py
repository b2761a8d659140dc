"""Cloud-optimised GeoTIFFs, written from rows that come from the top."""

import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.geo.extra import geo_module
from engine.geo.scene import CACHE, Scene

BLOCK = 512
PALETTE = (
    (0, 0, 0),
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
)
"""Colours of classes, in turn; the first is the background's."""

Rows = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layer:
    """What one raster of a map holds."""

    nodata: int
    resampling: str
    """How overviews are made (GDAL's name)."""
    tags: dict[str, str]
    has_palette: bool = False


def write_cog(path: Path, scene: Scene, layer: Layer, bands: Iterable[Rows]) -> None:
    """Write a COG on a scene's grid from its rows uint8 (n, width), top first; in memory for a row of blocks. The same rows give the same bytes."""
    rasterio = geo_module("rasterio")
    unique = uuid.uuid4().hex[:8]
    plain, ready = (path.with_name(f".{path.stem}-{unique}-{kind}.tif") for kind in ("plain", "cog"))
    shape = {"width": scene.width, "height": scene.height, "count": 1, "dtype": "uint8", "nodata": layer.nodata}
    blocks = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "if_safer", "compress": "deflate"}
    grid = {"crs": scene.crs, "transform": rasterio.Affine(*scene.affine)}
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE):
            with rasterio.open(plain, "w", driver="GTiff", **shape, **blocks, **grid) as sink:
                sink.update_tags(**layer.tags)
                if layer.has_palette:
                    sink.write_colormap(1, {index: PALETTE[index % len(PALETTE)] for index in range(255)})
                first = 0
                for rows in in_blocks(bands, BLOCK):
                    sink.write(rows, 1, window=geo_module("rasterio.windows").Window(0, first, *rows.shape[::-1]))
                    first += len(rows)
            options = {"compress": "deflate", "blocksize": BLOCK, "bigtiff": "if_safer"}
            geo_module("rasterio.shutil").copy(
                plain, ready, driver="COG", overview_resampling=layer.resampling, **options
            )
        os.replace(ready, path)
    finally:
        for one in (plain, ready):
            one.unlink(missing_ok=True)


def in_blocks(bands: Iterable[Rows], rows: int) -> Iterator[Rows]:
    """The rows of `bands` in pieces of `rows`, the last one smaller."""
    waiting: list[Rows] = []
    count = 0
    for band in bands:
        waiting.append(band)
        count += len(band)
        if count >= rows:
            whole = np.concatenate(waiting)
            full = len(whole) // rows * rows
            yield from np.split(whole[:full], full // rows)
            waiting, count = [whole[full:]], len(whole) - full
    if count:
        yield np.concatenate(waiting)
