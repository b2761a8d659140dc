"""Small scenes and vectors for the tests."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin

UTM = "EPSG:32632"
LEFT, TOP, PIXEL = 500_000.0, 5_400_000.0, 0.5
"""Corner of the made scenes in metres and side of a pixel."""


def write_scene(
    path: Path,
    values: npt.NDArray[Any],
    corner: tuple[float, float] = (LEFT, TOP),
    crs: str | None = UTM,
    **options: Any,
) -> Path:
    """A GeoTIFF of values (B, h, w) with its upper left corner at `corner`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    transform = from_origin(*corner, PIXEL, PIXEL)
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **options) as sink:
        sink.write(values)
    return path


def ground(height: int = 200, width: int = 300, bands: int = 3, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Noise in 1-255, so that 0 can be no data."""
    return np.random.default_rng(seed).integers(1, 256, (bands, height, width), dtype=np.uint8)


def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
    """Points of columns and rows in metres."""
    return [(LEFT + PIXEL * column, TOP - PIXEL * row) for column, row in points]


def write_vectors(
    path: Path, geometries: list[Any], kinds: list[str] | None = None, crs: str | None = UTM, layer: str = "roads"
) -> Path:
    """A layer of geometries with the field `kind`; the ending of the name is its format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drivers = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}
    named = np.array(kinds or ["road"] * len(geometries), object)
    types = {one.geom_type for one in geometries}
    pyogrio.raw.write(
        str(path),
        geometry=shapely.to_wkb(np.array(geometries, object)),
        field_data=[named],
        fields=["kind"],
        crs=crs,
        driver=drivers[path.suffix],
        layer=layer,
        geometry_type=types.pop() if len(types) == 1 else "Unknown",
    )
    return path


def project(geometries: list[Any], crs: str) -> list[Any]:
    """Geometries of UTM in another CRS."""
    from rasterio.warp import transform

    def moved(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack(transform(CRS.from_string(UTM), CRS.from_string(crs), points[:, 0], points[:, 1]), axis=1)

    return list(shapely.transform(np.array(geometries, object), moved))
