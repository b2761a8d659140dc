"""Outlines of the classes of a map, as a GeoPackage."""

import os
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from engine.geo.extra import geo_module
from engine.geo.scene import CACHE, open_raster
from engine.settings.geo import PolygonSettings
from engine.tables.schema import IGNORE

AT_ONCE = 10_000
"""Polygons that are written together."""


def write_polygons(classes: Path, names: list[str], settings: PolygonSettings, path: Path) -> int:
    """Write the polygons of all classes but the first of a class raster, with the fields `class` and `area`; returns their number.

    Outlines follow the edges of pixels unless they are simplified. A map without any has an empty layer.
    """
    raw = geo_module("pyogrio.raw")
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.gpkg")
    total = 0
    try:
        with geo_module("rasterio").Env(GDAL_CACHEMAX=CACHE), open_raster(str(classes)) as raster:
            found = _outlines(raster, settings)
            while True:
                some = list(islice(found, AT_ONCE))
                if not some and total:
                    break
                raw.write(
                    str(temporary),
                    geometry=geo_module("shapely").to_wkb(np.array([one for one, _ in some], object)),
                    field_data=[
                        np.array([names[value] for _, value in some], object),
                        np.array([one.area for one, _ in some], np.float64),
                    ],
                    fields=["class", "area"],
                    geometry_type="Polygon",
                    crs=raster.crs.to_wkt(),
                    driver="GPKG",
                    layer="map",
                    append=total > 0,
                )
                total += len(some)
                if len(some) < AT_ONCE:
                    break
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return total


def _outlines(raster: Any, settings: PolygonSettings) -> Iterator[tuple[Any, int]]:
    """Polygons in the raster's CRS, and the class of each."""
    shapely = geo_module("shapely")
    shape = geo_module("shapely.geometry").shape
    for outline, value in geo_module("rasterio.features").shapes(geo_module("rasterio").band(raster, 1)):
        if int(value) in (0, IGNORE):
            continue
        polygon = shape(outline)
        if settings.simplify:
            polygon = shapely.simplify(polygon, settings.simplify)
        if not polygon.is_empty and polygon.area >= settings.min_area:
            yield polygon, int(value)
