"""A scene: a raster that lies on the earth, as its header describes it."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from engine.geo.extra import geo_module
from engine.ground.uri import split_uri

ENDINGS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
CACHE = 32 * 2**20
"""Bytes that GDAL may keep of the blocks that it read; its own default is a share of the machine's memory."""
Affine6: TypeAlias = tuple[float, float, float, float, float, float]
"""Coefficients a-f: x = a column + b row + c, y = d column + e row + f."""


@dataclass(frozen=True)
class Scene:
    """The header of a raster."""

    path: str
    name: str
    width: int
    height: int
    dtypes: tuple[str, ...]
    """Type of each band."""
    crs: Any
    """rasterio's CRS."""
    affine: Affine6
    has_holes: bool
    """Whether pixels can be without data."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of the whole scene in its CRS."""
        return self.box(0, 0, self.width, self.height)

    def box(self, left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x and largest y of a window in pixels."""
        a, b, c, d, e, f = self.affine
        corners = [(column, row) for column in (left, left + width) for row in (top, top + height)]
        xs, ys = zip(*((a * x + b * y + c, d * x + e * y + f) for x, y in corners), strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def metres_per_unit(self, why: str) -> float:
        """Metres of a unit of the CRS. Raises ValueError, naming `why` it is asked, for a CRS in degrees."""
        if self.crs.is_geographic:
            raise ValueError(
                f"{self.path}: {why} needs metres, and its CRS ({short_crs(self.crs)}) is in degrees. Give pixels,"
                " or reproject the scene to a metric CRS such as its UTM zone (rio warp --dst-crs)."
            )
        return float(self.crs.linear_units_factor[1])


def open_raster(path: str) -> Any:
    """The opened raster. Raises ValueError naming one that cannot be read."""
    rasterio = geo_module("rasterio")
    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise ValueError(f"{path}: not a raster that GDAL reads ({error}). Give a GeoTIFF.") from None


def read_scene(path: str) -> Scene:
    """The header of a scene. Raises ValueError for a raster without a CRS or a place in it."""
    with geo_module("rasterio").Env(GDAL_CACHEMAX=CACHE), open_raster(path) as raster:
        if raster.crs is None:
            raise ValueError(
                f"{path}: the scene has no CRS, so where it lies is unknown. Write it into the file:"
                f" rio edit-info --crs EPSG:… {path}"
            )
        if raster.transform.is_identity:
            raise ValueError(
                f"{path}: the scene has a CRS and no transform, so where it lies is unknown. Write it into the file:"
                f" rio edit-info --transform […] {path}"
            )
        masks = {flag.name for flags in raster.mask_flag_enums for flag in flags}
        return Scene(
            path,
            Path(path).stem,
            raster.width,
            raster.height,
            tuple(raster.dtypes),
            raster.crs,
            tuple(raster.transform)[:6],
            masks != {"all_valid"},
        )


def list_rasters(uri: str, setting: str) -> list[str]:
    """Sorted absolute paths of the rasters of a file, folder or pattern. Raises ValueError, naming the setting, without any."""
    parts = split_uri(uri)
    if parts.scheme not in ("", "file"):
        raise ValueError(
            f"{setting}={uri}: scenes are read from a local or mounted path. Mount the bucket, or copy it."
        )
    path = Path(parts.decoded if parts.scheme else parts.path).expanduser().absolute()
    if path.is_file():
        return [str(path)]
    found = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    shown = (one for one in found if not any(part.startswith(".") for part in one.parts[len(path.parts) :]))
    rasters = sorted(str(one) for one in shown if one.is_file() and one.suffix.lower() in ENDINGS)
    if not rasters:
        raise ValueError(f"{setting}={uri}: no raster ({', '.join(ENDINGS)}) there. Check the path.")
    return rasters


def list_scenes(uri: str, out: str) -> list[Scene]:
    """The scenes of a file, folder or pattern, by path, without what lies in the folder `out`, which a job before this one wrote.

    Raises ValueError as `read_scene` does, and for two scenes of one name.
    """
    written = Path(out).expanduser().absolute()
    paths = [path for path in list_rasters(uri, "scenes") if not Path(path).is_relative_to(written)]
    if not paths:
        raise ValueError(f"out={out}: the scenes lie in this folder, which is for what the job writes. Choose another.")
    scenes = [read_scene(path) for path in paths]
    _check_names([scene.path for scene in scenes])
    return scenes


def match_masks(scenes: Sequence[Scene], uri: str) -> list[str]:
    """Paths of the scenes' masks, which have their names. Raises ValueError for one that is missing or does not fit its scene."""
    paths = list_rasters(uri, "masks")
    _check_names(paths)
    by_name = {Path(path).stem: path for path in paths}
    if missing := [scene.name for scene in scenes if scene.name not in by_name]:
        raise ValueError(f"masks={uri}: {len(missing)} scenes have no mask of their name: {', '.join(missing[:5])}")
    found = [by_name[scene.name] for scene in scenes]
    for scene, path in zip(scenes, found, strict=True):
        check_mask(scene, path)
    return found


def check_mask(scene: Scene, path: str) -> None:
    """Raise ValueError unless a mask is one band of class indices on the scene's grid."""
    mask = read_scene(path)
    if len(mask.dtypes) != 1 or mask.dtypes[0] != "uint8":
        raise ValueError(
            f"{path}: a mask is one uint8 band of class indices, and this has {len(mask.dtypes)} of {mask.dtypes[0]}."
            " Convert it: rio convert --dtype uint8, or gdal_translate -b 1 -ot Byte."
        )
    shift = max(abs(one - other) for one, other in zip(mask.affine, scene.affine, strict=True))
    if (mask.width, mask.height) != (scene.width, scene.height) or mask.crs != scene.crs or shift > 1e-6:
        raise ValueError(
            f"{path}: the mask ({_grid(mask)}) is not on the grid of {scene.path} ({_grid(scene)})."
            f" Bring it there: rio warp --like {scene.path}"
        )


def short_crs(crs: Any) -> str:
    """`EPSG:32632`, or the beginning of the definition of a CRS without a code."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())[:60]


def _grid(scene: Scene) -> str:
    a, _, c, _, _, f = scene.affine
    return f"{scene.width} x {scene.height} pixels of {a:g} from ({c:g}, {f:g}), {short_crs(scene.crs)}"


def _check_names(paths: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for path in paths:
        other = first.setdefault(Path(path).stem, path)
        if other != path:
            raise ValueError(f"{other} and {path} have one name, which names what is written. Rename one of them.")
