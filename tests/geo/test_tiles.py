"""A tile is a row: windows of scenes as images and masks, their scaling, and validation by blocks."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from engine.geo.bands import BandScaling, choose_bands
from engine.geo.listing import shown_class
from engine.geo.scene import Scene, read_scene
from engine.geo.split import BlockSplit
from engine.geo.tile import Tile, split_tile, tile_grid, window_starts
from engine.geo.tile_reader import TileReader
from engine.geo.weak_masks import list_tiles
from engine.ground.run import Run
from engine.ground.steps import Store
from engine.images.collection import open_collection, open_masks
from engine.images.decode import decode_full_size, decode_mask_full_size
from engine.settings.block import SettingsError, parse
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.geo import BandSettings, SplitSettings, TilesJobSettings
from engine.tables.schema import IGNORE
from tests.geo.making import PIXEL, TOP, ground, write_scene


def job(folder: Path, **changed: Any) -> TilesJobSettings:
    tree = {"scenes": str(folder / "scenes"), "out": str(folder / "out"), "tiles": {"size": 64}, **changed}
    return parse(TilesJobSettings, tree, "test")


def run_in(folder: Path) -> Run:
    return Run(Store(str(folder / "store")).open(), "run", ClusterSettings())


@given(st.integers(1, 500), st.integers(1, 80), st.integers(1, 100))
@hypothesis_settings(deadline=None)
def test_windows_cover_the_scene_and_stay_inside(extent: int, size: int, stride: int) -> None:
    stride = min(stride, size)
    starts = window_starts(extent, size, stride)
    covered = {pixel for start in starts for pixel in range(start, start + size)}
    assert covered >= set(range(extent))
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(extent - size, 0)


def test_a_tile_is_written_and_read_as_it_is() -> None:
    tile = Tile(512, 7, 256, BandScaling((4, 3, 2), ((0.1, 3000.0), (-5.0, 1e6), (1 / 3, 7.0))), fill=255)
    assert split_tile("/scenes/a b#1.tif" + tile.fragment("ab12")) == ("/scenes/a b#1.tif", tile)
    assert split_tile("s3://bucket/a.png#x") == ("s3://bucket/a.png#x", None)
    for wrong in (
        "#tile=1,2",
        "#tile=0,0,0&bands=1&fill=0",
        "#tile=0,0,8&bands=1,2&fill=0",
        "#tile=0,0,8&bands=1&scale=x&fill=0",
    ):
        with pytest.raises(ValueError, match="not a tile"):
            split_tile("/a.tif" + wrong)


def test_the_images_of_a_table_of_tiles_are_the_windows_of_its_scenes(tmp_path: Path) -> None:
    scenes = {"a": ground(150, 200, seed=1), "b": ground(40, 64, seed=2)}
    for name, values in scenes.items():
        write_scene(tmp_path / "scenes" / f"{name}.tif", values)
        write_scene(tmp_path / "masks" / f"{name}.tif", (values[:1] % 3).astype(np.uint8))
    summary = list_tiles(job(tmp_path, masks=str(tmp_path / "masks")))
    assert summary["tiles"] == {"labelled": 13}
    assert not list(tmp_path.rglob("*.png")), "nothing is cut to files"
    run, source = run_in(tmp_path), SourceSettings(rows_per_shard=5)
    images = open_collection(run, "labelled", str(tmp_path / "out" / "labelled.parquet"), source)
    images = open_masks(run, images, str(tmp_path / "out" / "labelled_masks.parquet"), source)
    manifest = pickle.loads(pickle.dumps(images.manifest))
    rows = [row for shard in range(manifest.num_shards) for batch in manifest.read(shard) for row in batch.to_pylist()]
    assert [row["key"] for row in rows[:2]] == ["a_0_0.tif", "a_0_64.tif"]
    assert images.masks is not None
    masks = images.masks.read()["mask"].to_pylist()
    for row, mask in zip(rows, masks, strict=True):
        name, top, left = row["key"].removesuffix(".tif").split("_")
        window = scenes[name][:, int(top) : int(top) + 64, int(left) : int(left) + 64]
        height = window.shape[1]  # scene b is lower than a tile
        pixels, found = decode_full_size(row["image"]), decode_mask_full_size(mask)
        assert pixels.shape == (64, 64, 3)
        np.testing.assert_array_equal(pixels[:height], window.transpose(1, 2, 0))
        np.testing.assert_array_equal(found[:height], window[0] % 3)
        assert (pixels[height:] == 0).all()
        assert (found[height:] == IGNORE).all()


def test_a_changed_scene_is_another_collection(tmp_path: Path) -> None:
    digests = []
    for seed in (1, 1, 2):
        write_scene(tmp_path / "scenes" / "a.tif", ground(seed=seed))
        list_tiles(job(tmp_path))
        table = str(tmp_path / "out" / "pool.parquet")
        digests.append(open_collection(run_in(tmp_path), "pool", table, SourceSettings()).digest)
    assert digests[0] == digests[1] != digests[2]


def test_classes_of_tiles_are_labels_for_classify(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground(64, 192))
    mask = np.zeros((1, 64, 192), np.uint8)
    mask[0, 5:7, 70:75] = 1
    mask[0, :, 128:] = IGNORE
    path = write_scene(tmp_path / "masks" / "a.tif", mask)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(classes=json.dumps(["none", "building"]))
    summary = list_tiles(job(tmp_path, masks=str(tmp_path / "masks")))
    assert summary["not_used"] == {"all_ignored": 1}
    source = SourceSettings(label_column="contains")
    table = str(tmp_path / "out" / "labelled.parquet")
    tiles = open_collection(run_in(tmp_path), "labelled", table, source, labelled=True)
    assert tiles.manifest.label_counts == {"building": 1, "none": 1}
    assert shown_class(np.bincount([0, 0, 0, 2, 255], minlength=256)) == 2


def test_sixteen_bits_and_many_bands_are_scaled(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 4000, (4, 80, 80)).astype(np.uint16)
    values[:, :10] = 65535
    path = write_scene(tmp_path / "a.tif", values, nodata=65535)
    scene = read_scene(str(path))
    given = choose_bands(scene, BandSettings(bands=[4, 2, 1], scale=[(0, 3000)]))
    encoded = TileReader().read(scene.path, Tile(8, 4, 64, given))
    expected = np.floor((values[[3, 1, 0], 4:68, 8:72].astype(np.float32) * (255 / 3000)).clip(0, 255) + 0.5)
    expected[:, :6] = 0
    np.testing.assert_array_equal(decode_full_size(encoded), expected.transpose(1, 2, 0))
    found = choose_bands(scene, BandSettings(bands=[1, 2, 3], percentiles=(10, 90))).limits
    assert found is not None
    for (low, high), band in zip(found, values, strict=False):
        assert (low, high) == pytest.approx(tuple(np.percentile(band[10:], [10, 90])))
    floats = read_scene(str(write_scene(tmp_path / "f.tif", (values[:1] / 4000).astype(np.float32))))
    assert choose_bands(floats, BandSettings()).limits is not None, "no band that is not 8-bit is taken as it is"
    assert choose_bands(read_scene(str(write_scene(tmp_path / "g.tif", ground()))), BandSettings()).limits is None


def placed(width: int, height: int, corner: tuple[float, float]) -> Scene:
    path = "scene.tif"
    affine = (PIXEL, 0.0, corner[0], 0.0, -PIXEL, corner[1])
    return Scene(path, "scene", width, height, ("uint8",), rasterio.CRS.from_epsg(32632), affine, False)


@pytest.mark.parametrize("margin", [0.0, 24.0])
def test_no_labelled_tile_is_near_a_validation_tile(margin: float) -> None:
    split = BlockSplit(SplitSettings(share=0.3, block=100, margin=margin, seed=1))
    scene, size = placed(3000, 2400, (500_003.0, TOP)), 64
    grid = tile_grid(scene.width, scene.height, size, 48)
    sides = np.array(split.sides(scene, grid, size))
    train, validation = grid[sides == "train"], grid[sides == "validation"]
    assert len(train) > 500
    assert len(validation) > 100
    apart = np.abs(train[:, None] - validation[None]).max(axis=2) - size
    assert apart.min() * PIXEL >= margin
    share = len(validation) / (len(train) + len(validation))
    assert 0.1 < share < 0.4
    # a scene that overlaps agrees: the same windows of the earth are on the same sides
    other = placed(3000, 2400, (500_003.0 + 480 * PIXEL, TOP - 96 * PIXEL))
    where = {tuple(one): side for one, side in zip(grid.tolist(), sides, strict=True)}
    pairs = [
        (where[left + 480, top + 96], side)
        for (left, top), side in zip(grid.tolist(), split.sides(other, grid, size), strict=True)
        if (left + 480, top + 96) in where
    ]
    assert len(pairs) > 1000
    assert all(one == same for one, same in pairs)


def test_validation_tiles_have_a_table_of_their_own(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground(640, 640))
    write_scene(tmp_path / "masks" / "a.tif", np.ones((1, 640, 640), np.uint8))
    split = {"block": 96, "share": 0.3, "seed": 4, "margin": 5}
    masks = {"masks": str(tmp_path / "masks")}
    tiles = list_tiles(job(tmp_path, split=split, **masks))["tiles"]
    tables = {one.stem for one in (tmp_path / "out").glob("*.parquet")}
    assert tables == {"labelled", "labelled_masks", "validation", "validation_masks"}
    rows = {name: pq.read_table(tmp_path / "out" / f"{name}.parquet") for name in tables}
    assert rows["validation"].num_rows == tiles["validation"] > 0
    assert rows["validation"]["key"] == rows["validation_masks"]["key"]
    list_tiles(job(tmp_path, **masks))
    assert {one.stem for one in (tmp_path / "out").glob("*.parquet")} == {"labelled", "labelled_masks"}
    with pytest.raises(ValueError, match=r"no validation tile is left .*raise split\.share"):
        list_tiles(job(tmp_path, split={"block": 8, "share": 0.01}, **masks))
    pool = list_tiles(job(tmp_path, split=split))
    assert pool["not_used"]["validation_without_mask"] == tiles["validation"]


def test_scenes_and_masks_that_do_not_fit_are_said_with_their_remedy(tmp_path: Path) -> None:
    write_scene(tmp_path / "scenes" / "a.tif", ground(bands=5))

    def message(**changed: Any) -> str:
        with pytest.raises(ValueError) as raised:  # noqa: PT011 - the messages are compared below
            list_tiles(job(tmp_path, **changed))
        return str(raised.value)

    assert "a.tif: 5 bands, and which of them are red, green and blue is not declared. Set bands.bands" in message()
    assert "names band 6, and the scene has 5" in message(bands={"bands": [6, 2, 1]})
    assert "no raster" in message(masks=str(tmp_path / "masks"))
    rgb = {"bands": {"bands": [3, 2, 1]}, "masks": str(tmp_path / "masks")}
    mask = tmp_path / "masks" / "a.tif"
    write_scene(tmp_path / "masks" / "b.tif", ground(bands=1))
    assert "1 scenes have no mask of their name: a" in message(**rgb)
    write_scene(mask, ground(bands=1).astype(np.float32))
    assert "one uint8 band of class indices, and this has 1 of float32" in message(**rgb)
    write_scene(mask, ground(bands=1, width=299))
    assert "299 x 200 pixels" in (said := message(**rgb))
    assert f"rio warp --like {tmp_path}/scenes/a.tif" in said
    write_scene(mask, np.full((1, 200, 300), IGNORE, np.uint8))
    assert "no labelled tile is left (20 all_ignored)" in message(**rgb)
    (tmp_path / "scenes" / "a.tif").write_text("no raster")
    assert "a.tif: not a raster that GDAL reads" in message()
    assert "local or mounted path" in message(scenes="s3://bucket/scenes")
    with pytest.raises(SettingsError, match=r"one band or three, and 2 are named"):
        job(tmp_path, bands={"bands": [1, 2]})
    with pytest.raises(SettingsError, match=r"lower limit first"):
        job(tmp_path, bands={"scale": [[9, 1]]})
    with pytest.raises(SettingsError, match=r"set one of the two"):
        job(tmp_path, bands={"scale": [[0, 9]], "percentiles": [1, 99]})


def test_a_tile_of_a_scene_that_went_away_cannot_be_read(tmp_path: Path) -> None:
    reader, tile = TileReader(), Tile(0, 0, 8, BandScaling((1, 2, 3)))
    assert reader.read(str(tmp_path / "gone.tif"), tile) is None
    path = str(write_scene(tmp_path / "a.tif", ground()))
    assert reader.read(path, tile) is not None
    assert reader.read(path, Tile(0, 0, 8, BandScaling((9,)))) is None
    assert reader.read(path, Tile(300, 0, 8, BandScaling((1,)))) is None
