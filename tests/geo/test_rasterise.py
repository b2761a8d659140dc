"""Masks from vectors: against the closed form of a band, whatever the file's format and CRS, and what cannot be drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import rasterio
from shapely.geometry import LineString, Point, Polygon

from engine.geo.burn import Burner
from engine.geo.scene import list_scenes, read_scene
from engine.geo.vectors import VectorLayer
from engine.geo.weak_masks import draw_all, rasterise
from engine.images import randaugment
from engine.settings.block import parse
from engine.settings.geo import RasteriseJobSettings
from engine.tables.schema import IGNORE
from tests.geo.making import PIXEL, at, ground, project, write_scene, write_vectors

START, END = (20.3, 30.7), (250.2, 160.4)


def settings(folder: Path, **changed: Any) -> RasteriseJobSettings:
    tree = {
        "scenes": str(folder / "scenes"),
        "vectors": {"uri": str(folder / "roads.gpkg")},
        "features": {"road": {"width": 5}},
        "background": "ground",
        "tiles": {"size": 64},
        "out": str(folder / "out"),
        **changed,
    }
    return parse(RasteriseJobSettings, tree, "test")


def distance(
    height: int, width: int, start: tuple[float, float], end: tuple[float, float], pixel: tuple[float, float] = (1, 1)
) -> npt.NDArray[np.float64]:
    """Distance (h, w) of each pixel's centre from a segment; both are in pixels, which are of the size `pixel` (x, y)."""
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x * pixel[0], y * pixel[1]
    (x0, y0), (x1, y1) = ((one[0] * pixel[0], one[1] * pixel[1]) for one in (start, end))
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = along.clip(0, 1)
    result: npt.NDArray[np.float64] = np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))
    return result


def mask_of(folder: Path, name: str = "a") -> npt.NDArray[np.uint8]:
    with rasterio.open(folder / "out" / "masks" / f"{name}.tif") as raster:
        return np.asarray(raster.read(1))


def test_ignored_is_what_the_task_ignores() -> None:
    assert IGNORE == randaugment.IGNORE


@pytest.mark.parametrize("file", ["roads.gpkg", "roads.geojson", "roads.shp"])
def test_a_line_is_the_closed_form_of_a_band(tmp_path: Path, file: str) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground())
    line = LineString(at(START, END))
    crs = "EPSG:4326" if file == "roads.geojson" else "EPSG:32632"
    write_vectors(tmp_path / file, project([line], crs), crs=crs)
    rule = {"road": {"width": 5, "ignore": 3}}
    rasterise(settings(tmp_path, vectors={"uri": str(tmp_path / file)}, features=rule))
    found, away = mask_of(tmp_path), distance(200, 300, START, END)
    expected = np.select([away <= 2.5, away <= 5.5], [1, IGNORE], 0)
    # centres within a hundredth of a pixel of an edge may fall on either side: arcs are polygons, and a CRS rounds
    sure = (np.abs(away - 2.5) > 0.02) & (np.abs(away - 5.5) > 0.02)
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(found[sure], expected[sure])
    with rasterio.open(tmp_path / "scenes" / "a.tif") as scene, rasterio.open(tmp_path / "out/masks/a.tif") as mask:
        assert (mask.crs, mask.transform, mask.shape) == (scene.crs, scene.transform, scene.shape)


def test_metres_are_those_of_the_ground(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground())
    write_vectors(tmp_path / "roads.gpkg", [LineString(at(START, END))])
    rasterise(settings(tmp_path, features={"road": {"width": 4, "unit": "metres"}}))
    away = PIXEL * distance(200, 300, START, END)
    sure = np.abs(away - 2) > 0.01
    np.testing.assert_array_equal(mask_of(tmp_path)[sure], (away <= 2)[sure])


def test_later_rules_are_on_top_and_no_band_covers_what_is_drawn(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground())
    house = Polygon(at((40, 40), (90, 40), (90, 80), (40, 80)))
    street = LineString(at((0, 60.5), (300, 60.5)))
    write_vectors(tmp_path / "roads.gpkg", [street, house, Point(at((200, 120))[0])], ["street", "house", "tree"])
    rules = {
        "roof": {"where": "kind = 'house'"},
        "road": {"where": "kind = 'street'", "width": 3, "ignore": 4},
        "crown": {"where": "kind = 'tree'", "width": 10, "label": "tree"},
    }
    wanted = settings(tmp_path, features=rules, absent="ignore")
    summary = rasterise(wanted)
    assert wanted.classes == summary["classes"] == ["ground", "roof", "road", "tree"]
    found = mask_of(tmp_path)
    assert (found[50, 40:90] == 1).all()
    assert (found[57, 40:90] == 1).all(), "the road's ignored band does not cover the roof"
    assert (found[59:62] == 2).all(), "the later rule is on top"
    assert (found[57, 91:] == IGNORE).all()
    assert found[0, 0] == IGNORE, "absent: ignore"
    assert summary["pixels"]["tree"] == (found == 3).sum() == pytest.approx(np.pi * 25, rel=0.05)


def test_bands_of_rows_are_the_whole_mask(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground())
    rng = np.random.default_rng(3)
    lines = [LineString(at(*rng.uniform(-30, 330, (4, 2)).tolist())) for _ in range(20)]
    write_vectors(tmp_path / "roads.gpkg", lines)
    wanted = settings(tmp_path, features={"road": {"width": 4, "ignore": 2}})
    scene = read_scene(str(tmp_path / "scenes" / "a.tif"))
    burner = Burner(draw_all(VectorLayer(wanted.vectors), scene, wanted))
    whole = burner.rows(0, 200, 300)
    assert len(np.unique(whole)) == 3
    parts = [burner.rows(first, min(37, 200 - first), 300) for first in range(0, 200, 37)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_pixels_without_data_are_ignored_and_sparse_tiles_become_the_pool(tmp_path: Path) -> None:
    values = ground(128, 256)
    values[:, :, :20] = 0
    write_scene(tmp_path / "scenes" / "a.tif", values, nodata=0)
    crossing = [LineString(at((0, y), (64.0 + 1e-3, y))) for y in (10, 20, 80)]
    write_vectors(tmp_path / "roads.gpkg", crossing)
    summary = rasterise(settings(tmp_path, min_features=2))
    assert (mask_of(tmp_path)[:, :20] == IGNORE).all()
    # tiles (0, 0) and (0, 64) have two features, those below one, all others none
    assert summary["tiles"] == {"labelled": 2, "pool": 6}
    assert summary["not_used"] == {"few_features": 6}
    rows = pq.read_table(tmp_path / "out" / "labelled.parquet").to_pylist()
    assert [(row["left"], row["top"], row["features"], row["contains"]) for row in rows] == [
        (0, 0, 2, "road"),
        (64, 0, 2, "road"),
    ]
    strict = rasterise(settings(tmp_path, min_features=2, tiles={"size": 64, "min_valid": 0.9}))
    assert strict["tiles"] == {"labelled": 1, "pool": 5}
    assert strict["not_used"] == {"no_data": 2, "few_features": 5}


def test_what_cannot_be_used_is_said_with_its_remedy(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground())
    line = LineString(at(START, END))
    write_vectors(tmp_path / "roads.gpkg", [line])
    write_scene(tmp_path / "bare" / "b.tif", ground(), crs=None)
    write_scene(tmp_path / "degrees" / "c.tif", ground(), corner=(9.0, 48.0), crs="EPSG:4326")
    write_vectors(tmp_path / "bare.shp", [line], crs=None)
    far = LineString([(x + 90_000, y) for x, y in at(START, END)])
    write_vectors(tmp_path / "far.gpkg", [far])
    write_vectors(tmp_path / "two.gpkg", [line])
    write_vectors(tmp_path / "two.gpkg", [line], layer="rivers")
    (tmp_path / "text.gpkg").write_text("no vectors")

    def message(**changed: Any) -> str:
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - the messages are compared below
            rasterise(settings(tmp_path, **changed))
        return str(raised.value)

    def vectors(name: str, **more: str) -> dict[str, Any]:
        return {"vectors": {"uri": str(tmp_path / name), **more}}

    assert "bare/b.tif: the scene has no CRS" in (said := message(scenes=str(tmp_path / "bare")))
    assert "rio edit-info --crs" in said
    assert "bare.shp: layer bare has no CRS" in (said := message(**vectors("bare.shp")))
    assert "vectors.crs=EPSG:4326" in said
    rasterise(settings(tmp_path, **vectors("bare.shp", crs="EPSG:32632")))
    assert "none of its 1 features lies on one of the 1 scenes" in (said := message(**vectors("far.gpkg")))
    assert said.count("EPSG:32632") == 2
    assert "2 layers (roads, rivers). Set vectors.layer" in message(**vectors("two.gpkg"))
    assert "vectors cannot be read" in message(**vectors("text.gpkg"))
    assert "vectors cannot be read" in message(**vectors("missing.gpkg"))
    assert "vectors cannot be read" in message(**vectors("two.gpkg", layer="lakes"))
    assert "Its fields are kind" in message(features={"road": {"where": "highway = 1", "width": 5}})
    assert "width 0" in message(features={"road": {}})
    metres = {"road": {"width": 5, "unit": "metres"}}
    assert "in degrees. Give pixels" in message(scenes=str(tmp_path / "degrees"), features=metres)
    assert "no raster" in message(scenes=str(tmp_path / "nothing"))
    assert "no labelled tile is left (20 few_features)" in message(min_features=9)


OSM = """<osm version="0.6">
<node id="1" version="1" lat="{0[1]}" lon="{0[0]}"/><node id="2" version="1" lat="{1[1]}" lon="{1[0]}"/>
<way id="9" version="1"><nd ref="1"/><nd ref="2"/><tag k="{2}" v="primary"/></way>
</osm>"""


def test_roads_come_from_openstreetmap_as_it_is(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground())
    line = project([LineString(at(START, END))], "EPSG:4326")[0]
    file = tmp_path / "roads.osm"
    rule = {"road": {"width": 5, "where": "highway IS NOT NULL"}}
    wanted = settings(tmp_path, vectors={"uri": str(file), "layer": "lines"}, features=rule)
    file.write_text(OSM.format(*line.coords, "highway"))
    rasterise(wanted)
    away = distance(200, 300, START, END)
    sure = np.abs(away - 2.5) > 0.05  # coordinates have 7 digits: a centimetre
    np.testing.assert_array_equal(mask_of(tmp_path)[sure], (away <= 2.5)[sure])
    file.write_text(OSM.format(*line.coords, "waterway"))
    with pytest.raises(ValueError, match=r"none of its 1 features lies on one of the 1 scenes"):
        rasterise(wanted)
    with pytest.raises(ValueError, match=r"5 layers \(points, lines,"):
        rasterise(settings(tmp_path, vectors={"uri": str(file)}))


def test_a_turned_scene_has_its_mask_in_its_own_rows_and_columns(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scenes" / "a.tif", ground())
    with rasterio.open(path, "r+") as raster:
        turned = raster.transform @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(1, 1.5)
        raster.transform = turned
    points = [turned @ point for point in (START, END)]
    write_vectors(tmp_path / "roads.gpkg", [LineString(points)])
    rasterise(settings(tmp_path))
    away = distance(200, 300, START, END)
    sure = np.abs(away - 2.5) > 0.02
    np.testing.assert_array_equal(mask_of(tmp_path)[sure], (away <= 2.5)[sure])
    rasterise(settings(tmp_path, features={"road": {"width": 3, "unit": "metres"}}))
    away = distance(200, 300, START, END, (PIXEL, 1.5 * PIXEL))
    sure = np.abs(away - 1.5) > 0.01
    np.testing.assert_array_equal(mask_of(tmp_path)[sure], (away <= 1.5)[sure])


def test_a_scene_is_named_once(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_scene(tmp_path / "scenes" / folder / "a.tif", ground(8, 8))
    with pytest.raises(ValueError, match=r"x/a.tif and .*y/a.tif have one name"):
        list_scenes(str(tmp_path / "scenes"), str(tmp_path / "out"))


def test_what_a_job_wrote_is_no_scene(tmp_path: Path) -> None:
    for name in ("a", "out/masks/a", ".hidden/a"):
        write_scene(tmp_path / f"{name}.tif", ground(8, 8))
    assert [one.path for one in list_scenes(str(tmp_path), str(tmp_path / "out"))] == [str(tmp_path / "a.tif")]
    with pytest.raises(ValueError, match="the scenes lie in this folder"):
        list_scenes(str(tmp_path), str(tmp_path))
