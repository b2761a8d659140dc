"""Maps of whole scenes: the same as the network over the whole image, at the right place, and the same bytes after a kill."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import pytest
import rasterio
import shapely
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rasterio.warp import transform_bounds

from engine.geo.bands import BandScaling, Pixels
from engine.geo.blend import Windows, reflected
from engine.geo.cog import in_blocks
from engine.geo.map_scene import Grid, Probabilities, SceneMapper
from engine.geo.mapping import PixelModel, map_scenes
from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.predict.pixels import pixel_model
from engine.settings.block import parse
from engine.settings.geo import MapJobSettings
from engine.settings.model import ModelSettings
from engine.tables.schema import IGNORE
from tests.geo.making import LEFT, PIXEL, TOP, UTM, ground, write_scene

CLASSES = ["ground", "roof", "road"]
SIZE = 64


def job(folder: Path, **changed: Any) -> MapJobSettings:
    tree = {
        "scenes": str(folder / "scenes"),
        "out": str(folder / "out"),
        "model": str(folder / "model"),
        "backend": "eager",
        **changed,
    }
    return parse(MapJobSettings, tree, "test")


def by_colour(windows: Pixels) -> Probabilities:
    """A class per pixel from its brightest band: 0.9 for it, 0.05 for the others."""
    best = torch.from_numpy(windows).argmax(dim=3)
    result: Probabilities = (0.05 + 0.85 * F.one_hot(best, 3).permute(0, 3, 1, 2)).float().numpy()
    return result


def colours(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """A scene (3, h, w) in which `by_colour` sees these classes."""
    return np.stack([np.where(classes == index, 200, 50).astype(np.uint8) for index in range(3)])


def model(classify: Callable[[Pixels], Probabilities] = by_colour, digest: str = "d") -> PixelModel:
    return PixelModel(classify, CLASSES, SIZE, digest)


@given(st.integers(1, 400), st.integers(8, 64), st.floats(0, 0.5), st.floats(0, 0.5))
@hypothesis_settings(deadline=None)
def test_the_weights_of_all_windows_add_up_to_one(extent: int, size: int, part: float, cut: float) -> None:
    overlap = int(part * size)
    windows = Windows(extent, size, overlap, int(cut * overlap))
    total = np.zeros(extent + 4 * size)
    for start in windows.starts:
        total[2 * size + start : 3 * size + start] += windows.weights
    np.testing.assert_allclose(total[2 * size : 2 * size + extent], 1, atol=1e-6)
    strips = windows.strips()
    assert [first for first, _ in strips[1:]] == [last for _, last in strips[:-1]]
    assert (strips[0][0], strips[-1][1]) == (0, extent)
    for (first, last), start in zip(strips, windows.starts, strict=True):
        assert first == last or start <= first <= last <= start + size


def test_rows_come_in_blocks_and_positions_are_mirrored() -> None:
    rows = np.arange(23, dtype=np.uint8)[:, None]
    pieces = list(in_blocks(np.split(rows, [0, 3, 4, 15]), 5))
    assert [len(piece) for piece in pieces] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(pieces), rows)
    assert reflected(np.arange(-3, 7), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    assert reflected(np.arange(-1, 2), 1).tolist() == [0, 0, 0]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small U-Net with random weights, and statistics of batch norms that are not those of a new network."""
    folder = tmp_path_factory.mktemp("network") / "model"
    wanted = ModelSettings(
        model="resnet8_cifar", img_size=SIZE, model_args={"width": 8}, decoder="unet", decoder_width=8
    )
    torch.manual_seed(0)
    unet = build_model(wanted, len(CLASSES))
    with torch.no_grad():
        unet(torch.randn(4, 3, SIZE, SIZE))
    save(folder, unet.eval(), wanted, CLASSES)
    return folder


def test_a_tiled_map_is_the_network_over_the_whole_scene(tmp_path: Path, network: Path) -> None:
    side, views = 384, "flip"
    values = ground(side, side)
    path = write_scene(tmp_path / "scenes" / "a.tif", values)
    ready = pixel_model(job(tmp_path, model=str(network), views=views))
    assert (ready.classes, ready.size) == (CLASSES, SIZE)
    whole = pixel_model(job(tmp_path, model=str(network), views=views, batch_size=1))
    expected = whole.classify(values.transpose(1, 2, 0)[None])[0]  # eager takes any size
    # what lies further than `reach` from a pixel does not change it: measured, not assumed
    changed = values.copy()
    changed[:, :, : side // 2] ^= 255
    moved = np.abs(whole.classify(changed.transpose(1, 2, 0)[None])[0] - expected).max(axis=(0, 1))
    reach = int(np.flatnonzero(moved > 0).max()) + 1 - side // 2
    trim = 48
    assert 8 < reach <= trim
    windows = Windows(side, SIZE * 4, 128, trim)
    with rasterio.open(path) as raster:
        mapper = SceneMapper(raster, BandScaling((1, 2, 3)), Grid(windows, windows, 2), ready.classify, 3)
        found = np.concatenate([mapper.band(number) for number in range(len(mapper.strips))], axis=1)
    inner = slice(reach, side - reach)
    best = np.sort(expected, axis=0)
    clear = (best[-1] - best[-2] > 1e-4)[inner, inner]
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[0, inner, inner][clear], expected.argmax(axis=0)[inner, inner][clear])
    np.testing.assert_allclose(found[1, inner, inner] / 255, best[-1][inner, inner], atol=0.5 / 255 + 1e-4)


def test_a_map_lies_where_its_scene_lies(tmp_path: Path) -> None:
    truth = np.random.default_rng(1).integers(0, 3, (130, 170)).repeat(3, axis=0).repeat(3, axis=1)[:388, :509]
    values = colours(truth)
    values[:, 200:300, :150] = 0
    scene = write_scene(tmp_path / "scenes" / "a.tif", values, nodata=0)
    record = map_scenes(job(tmp_path), model())[0]
    expected = truth.copy()
    expected[200:300, :150] = IGNORE
    with rasterio.open(tmp_path / "out" / "a_classes.tif") as found, rasterio.open(scene) as source:
        np.testing.assert_array_equal(found.read(1), expected)
        assert (found.crs, found.transform, found.bounds) == (source.crs, source.transform, source.bounds)
        assert found.nodata == IGNORE
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert found.overviews(1) == [] or found.overviews(1)[0] == 2
        # corners as anybody would compute them from the header of the scene, in degrees
        corner = (LEFT, TOP - 388 * PIXEL, LEFT + 509 * PIXEL, TOP)
        degrees = transform_bounds(found.crs, "EPSG:4326", *found.bounds)
        assert degrees == pytest.approx(transform_bounds(UTM, "EPSG:4326", *corner), abs=1e-9)
        assert degrees[0] == pytest.approx(9.0, abs=1e-6), "x = 500 km is the middle of zone 32"
        assert found.index(LEFT + 100.1 * PIXEL, TOP - 40.1 * PIXEL) == (40, 100)
    with rasterio.open(tmp_path / "out" / "a_confidence.tif") as sure:
        confidence = sure.read(1)
        assert sure.nodata == 0
    assert set(np.unique(confidence)) == {0, round(0.9 * 255)}
    assert ((confidence == 0) == (expected == IGNORE)).all()
    counted = [int((expected == index).sum()) for index in range(3)]
    assert record["pixels"] == {**dict(zip(CLASSES, counted, strict=True)), "no_data": 100 * 150}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 300), (64, 64), (200, 3), (65, 129)])
def test_scenes_of_any_size_are_mapped(tmp_path: Path, height: int, width: int) -> None:
    truth = np.random.default_rng(2).integers(0, 3, (height, width))
    write_scene(tmp_path / "scenes" / "a.tif", colours(truth))
    map_scenes(job(tmp_path, overlap=10, trim=3), model())
    with rasterio.open(tmp_path / "out" / "a_classes.tif") as found:
        np.testing.assert_array_equal(found.read(1), truth)


def test_outlines_are_polygons_at_their_place(tmp_path: Path) -> None:
    truth = np.zeros((120, 200), np.int64)
    truth[20:60, 30:90] = 1
    truth[100:102, 10:12] = 1
    truth[70:80, 150:200] = 2
    write_scene(tmp_path / "scenes" / "a.tif", colours(truth))
    record = map_scenes(job(tmp_path, polygons={"min_area": 2}), model())[0]
    about, _, encoded, fields = pyogrio.raw.read(str(tmp_path / "out" / record["files"]["polygons"]))
    assert about["crs"] == UTM
    found = dict(zip(fields[0].tolist(), shapely.from_wkb(encoded), strict=True))
    expected = shapely.box(LEFT + 30 * PIXEL, TOP - 60 * PIXEL, LEFT + 90 * PIXEL, TOP - 20 * PIXEL)
    assert set(found) == {"roof", "road"}, "the second roof has an area of 1"
    assert found["roof"].equals(expected)
    assert fields[1].tolist() == [40 * 60 * PIXEL**2, 10 * 50 * PIXEL**2]
    larger = map_scenes(job(tmp_path, polygons={"min_area": 300}), model(lambda _: pytest.fail("predicted again")))
    assert larger[0]["pixels"] == record["pixels"]
    assert pyogrio.raw.read(str(tmp_path / "out" / "a.gpkg"))[3][0].tolist() == ["roof"]
    write_scene(tmp_path / "scenes" / "a.tif", colours(np.zeros((120, 200), np.int64)))
    map_scenes(job(tmp_path, polygons={}), model())
    assert len(pyogrio.raw.read(str(tmp_path / "out" / "a.gpkg"))[2]) == 0


def test_finished_maps_and_bands_are_not_computed_again(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", colours(np.random.default_rng(4).integers(0, 3, (500, 130))))
    calls: list[int] = []

    def counted(windows: Pixels) -> Probabilities:
        calls.append(len(windows))
        if len(calls) == 7:
            raise KeyboardInterrupt
        return by_colour(windows)

    wanted = job(tmp_path, batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        map_scenes(wanted, model(counted))
    kept = len(list((tmp_path / "out" / ".bands").rglob("*.band")))
    assert kept == 6
    assert not list((tmp_path / "out").glob("*.tif"))
    map_scenes(wanted, model(counted))
    rows = len(Windows(500, SIZE, 16, 4).starts)
    assert len(calls) == 7 + 1 + (rows - kept), "one row of windows again, and those that were missing"
    before = {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()}
    assert set(before) == {"a_classes.tif", "a_confidence.tif", "a.json"}
    map_scenes(wanted, model(counted))
    assert len(calls) == 8 + rows - kept
    map_scenes(wanted, model(by_colour, digest="another"))
    after = {one.name: one.read_bytes() for one in (tmp_path / "out").iterdir()}
    assert before.pop("a.json") != after.pop("a.json")
    assert before == after, "the same answers are the same bytes, interrupted or not"


def test_bands_of_another_model_are_not_used(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", colours(np.zeros((300, 70), np.int64)))
    calls: list[int] = []

    def until(windows: Pixels) -> Probabilities:
        calls.append(len(windows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return by_colour(windows)

    with pytest.raises(KeyboardInterrupt):
        map_scenes(job(tmp_path), model(until))
    map_scenes(job(tmp_path), model(lambda windows: by_colour(windows[..., ::-1].copy()), digest="another"))
    with rasterio.open(tmp_path / "out" / "a_classes.tif") as found:
        assert (found.read(1) == 2).all()
    assert not (tmp_path / "out" / ".bands").exists()


def test_a_killed_map_goes_on_to_the_same_bytes(tmp_path: Path, network: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground(900, 200))
    options = {"model": str(network), "views": "flip", "batch_size": 4}
    wanted = job(tmp_path, **options)
    config = tmp_path / "map.yaml"
    config.write_text(yaml.safe_dump(wanted.model_dump(mode="json")))
    killed = subprocess.Popen([sys.executable, "-m", "jobs.map", str(config)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "out").rglob("*.band"))) < 3:
            assert killed.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        killed.kill()
        killed.wait()
    assert not (tmp_path / "out" / "a.json").exists()
    assert list((tmp_path / "out").rglob("*.band"))
    map_scenes(wanted, pixel_model(wanted))
    undisturbed = job(tmp_path, out=str(tmp_path / "other"), **options)
    map_scenes(undisturbed, pixel_model(undisturbed))
    for name in ("a_classes.tif", "a_confidence.tif", "a.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name


def test_what_cannot_be_mapped_is_said_with_its_remedy(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground(bands=4))
    with pytest.raises(ValueError, match=r"a\.tif: 4 bands.*Set bands\.bands"):
        map_scenes(job(tmp_path), model())
    rgb = {"bands": {"bands": [1, 2, 3]}}
    with pytest.raises(ValueError, match=r"overlap=40, trim=0: windows are 64 pixels"):
        map_scenes(job(tmp_path, overlap=40, trim=0, **rgb), model())
    with pytest.raises(ValueError, match=r"written to a local or mounted folder"):
        map_scenes(job(tmp_path, out="s3://bucket/maps", **rgb), model())
    write_scene(tmp_path / "scenes" / "a.tif", ground(), crs=None)
    with pytest.raises(ValueError, match=r"a\.tif: the scene has no CRS"):
        map_scenes(job(tmp_path), model())
    plain = ModelSettings(model="resnet8_cifar", img_size=32, model_args={"width": 8})
    save(tmp_path / "plain", build_model(plain, 2), plain, ["a", "b"])
    with pytest.raises(ValueError, match=r"classes of whole images.*decoder=unet"):
        pixel_model(job(tmp_path, model=str(tmp_path / "plain")))
