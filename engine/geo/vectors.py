"""Features of a layer, brought onto a scene's grid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.geo.extra import geo_module
from engine.geo.scene import Affine6, Scene, short_crs
from engine.settings.geo import FeatureSettings, VectorSettings

Geometries = npt.NDArray[np.object_]
"""shapely geometries (n,)."""


@dataclass(frozen=True)
class DrawnFeatures:
    """The features of one rule on a scene, in pixels: x is the column and y the row, pixel (0, 0) reaches from 0 to 1."""

    value: int
    """Class of their pixels."""
    features: Geometries
    """As they were mapped, without a width."""
    areas: Geometries
    """What is drawn of each."""
    bands: Geometries | None
    """What is ignored where nothing is drawn; None without such a band."""


class VectorLayer:
    """The layer of `settings`. Raises ValueError for a file or layer that cannot be read, and for one without a CRS."""

    def __init__(self, settings: VectorSettings) -> None:
        self.settings = settings
        self.name = settings.layer or self._only_layer()
        about = self._call("read_info", layer=self.name)
        self.fields = [str(name) for name in about["fields"]]
        crs = about["crs"] or settings.crs
        if crs is None:
            raise ValueError(
                f"{settings.uri}: layer {self.name} has no CRS (of a Shapefile: no .prj), so where its features lie is unknown."
                " Set vectors.crs, e.g. vectors.crs=EPSG:4326."
            )
        self.crs = self._parse_crs(crs)

    def _parse_crs(self, text: str) -> Any:
        rasterio = geo_module("rasterio")
        try:
            return geo_module("rasterio.crs").CRS.from_user_input(text)
        except rasterio.errors.CRSError as error:
            raise ValueError(
                f"{self.settings.uri}: CRS {text[:60]!r} is unknown ({error}). Set vectors.crs to its EPSG code."
            ) from None

    def _only_layer(self) -> str:
        layers = [str(name) for name, _ in self._call("list_layers")]
        if len(layers) != 1:
            raise ValueError(
                f"{self.settings.uri}: {len(layers)} layers ({', '.join(layers[:10])}). Set vectors.layer to one."
            )
        return layers[0]

    def _call(self, name: str, **options: Any) -> Any:
        """pyogrio's function on the file. Raises ValueError for what it cannot do."""
        pyogrio = geo_module("pyogrio")
        function = getattr(pyogrio.raw if name == "read" else pyogrio, name)
        try:
            return function(self.settings.uri, **options)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, FileNotFoundError) as error:
            raise ValueError(
                f"{self.settings.uri}: vectors cannot be read ({error}). Check vectors.uri and vectors.layer."
            ) from None

    def near(self, scene: Scene, where: str | None, reach: float) -> Geometries:
        """Geometries, in the scene's CRS, of the features that meet `where` and whose boxes lie within `reach` units of the scene.

        Raises ValueError for a condition that the layer does not understand.
        """
        left, bottom, right, top = scene.bounds
        box = (left - reach, bottom - reach, right + reach, top + reach)
        warp = geo_module("rasterio.warp")
        box = warp.transform_bounds(scene.crs, self.crs, *box, densify_pts=21)
        try:
            _, _, encoded, _ = self._call("read", layer=self.name, columns=[], where=where, bbox=box)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"{self.settings.uri}: the condition {where!r} cannot be used ({error}). Its fields are {', '.join(self.fields) or 'none'}."
            ) from None
        shapely = geo_module("shapely")
        found: Geometries = shapely.from_wkb(encoded, on_invalid="ignore")
        found = shapely.force_2d(found[[one is not None and not one.is_empty for one in found]])
        if self.crs == scene.crs or not len(found):
            return found

        def transformed(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            return np.stack(warp.transform(self.crs, scene.crs, points[:, 0], points[:, 1]), axis=1)

        moved = shapely.transform(found, transformed)
        return moved[np.isfinite(shapely.bounds(moved)).all(axis=1)]

    def draw(self, scene: Scene, value: int, rule: FeatureSettings) -> DrawnFeatures:
        """The features of a rule with their widths. Raises ValueError for lines and points without one, and for metres where there are none."""
        metres = rule.unit == "metres"
        a, b, _, d, e, _ = scene.affine
        pixel = max(np.hypot(a, d), np.hypot(b, e))
        unit = 1 / scene.metres_per_unit("a width in metres") if metres else 1.0
        half, band = unit * rule.width / 2, unit * rule.ignore
        mapped = self.near(scene, rule.where, (half + band) * (1 if metres else pixel))
        shapely = geo_module("shapely")
        if not half and (shapely.get_dimensions(mapped) < 2).any():
            raise ValueError(
                f"{self.settings.uri}: lines and points have no area, and their rule ({rule.where or 'all features'}) has width 0."
                " Set features.NAME.width."
            )
        features = _to_pixels(mapped, scene.affine)
        grown = mapped if metres else features  # with a width in metres, pixels need not be square

        def area(distance: float) -> Geometries:
            around = shapely.buffer(grown, distance, quad_segs=16) if distance else grown
            return _to_pixels(around, scene.affine) if metres else around

        return DrawnFeatures(value, features, area(half), area(half + band) if band else None)

    def explain_no_overlap(self, scenes: list[Scene]) -> str:
        """That no feature lies on any scene, with where both are."""
        about = self._call("read_info", layer=self.name, force_total_bounds=True, force_feature_count=True)
        box = about["total_bounds"]  # of some formats unknown
        spans = "is" if box is None else f"spans [{', '.join(f'{one:.6g}' for one in box)}]"
        first = ", ".join(f"{one:.6g}" for one in scenes[0].bounds)
        return (
            f"{self.settings.uri}: none of its {about['features']:,} features lies on one of the {len(scenes)} scenes. The layer {spans} in"
            f" {short_crs(self.crs)}, {scenes[0].name} spans [{first}] in {short_crs(scenes[0].crs)}. Check the two files, the conditions"
            " (features.NAME.where) and the CRS."
        )


def _to_pixels(geometries: Geometries, affine: Affine6) -> Geometries:
    """Geometries of a CRS in columns and rows."""
    inverse = ~geo_module("rasterio").Affine(*affine)

    def moved(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = points.T
        return np.stack([inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f], axis=1)

    result: Geometries = geo_module("shapely").transform(geometries, moved) if len(geometries) else geometries
    return result
