"""From vectors to a map: weak masks, a student, its own masks of the rest, and a georeferenced raster that is better than what it learned from."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from PIL import Image
from shapely.geometry import LineString

from engine.geo.mapping import map_scenes
from engine.geo.weak_masks import rasterise
from engine.predict.pixels import pixel_model
from engine.settings.block import parse
from engine.settings.geo import MapJobSettings, RasteriseJobSettings
from tests.geo.making import at, write_scene, write_vectors
from tests.geo.test_rasterise import distance
from tests.small_run import small_settings

SIDE, TILE, WIDTH = 384, 32, 4


def iou(mask: npt.NDArray[np.uint8], truth: npt.NDArray[np.bool_]) -> float:
    """Of class 1, where the mask is known."""
    known, found = mask != 255, mask == 1
    return float((found & truth & known).sum() / ((found | truth) & known).sum())


def make_scenes(folder: Path) -> npt.NDArray[np.bool_]:
    """A scene with reddish roads on noisy green ground, and a map that lacks every fourth road and misplaces the others; the true roads."""
    rng = np.random.default_rng(0)
    truth = np.zeros((SIDE, SIDE), bool)
    mapped = []
    for number in range(28):
        start, end = rng.uniform(0, SIDE, (2, 2))
        truth |= distance(SIDE, SIDE, tuple(start), tuple(end)) <= WIDTH / 2
        if number % 4:
            shift = rng.uniform(-1.5, 1.5, 2)
            mapped.append(LineString(at(tuple(start + shift), tuple(end + shift))))
    colours = np.array([[60, 140, 60], [170, 80, 70]])
    values = colours[truth.astype(int)] + rng.integers(-30, 30, (SIDE, SIDE, 3))
    write_scene(folder / "scenes" / "a.tif", values.clip(1, 255).astype(np.uint8).transpose(2, 0, 1))
    write_vectors(folder / "roads.gpkg", mapped)
    return truth


def write_exact(folder: Path, truth: npt.NDArray[np.bool_]) -> Path:
    """Eight tiles of the first rows of the scene with their true masks, as folders `images` and `masks`."""
    with rasterio.open(folder / "scenes" / "a.tif") as scene:
        pixels = scene.read()
    for kind in ("images", "masks"):
        (folder / "exact" / kind).mkdir(parents=True)
    for number in range(8):
        window = np.s_[:TILE, number * TILE : (number + 1) * TILE]
        Image.fromarray(pixels[:, *window].transpose(1, 2, 0).copy()).save(folder / "exact/images" / f"{number}.png")
        Image.fromarray(truth[window].astype(np.uint8)).save(folder / "exact/masks" / f"{number}.png")
    return folder / "exact"


def fit(**changed: Any) -> dict[str, Any]:
    shared = {"objective": "segmentation", "steps": 100, "lr": 0.05, "amp": False, "model_ema_decay": 0.9}
    return {**shared, "checkpoint_every": 50, "log_every": 20, **changed}


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_map_is_better_than_the_vectors_it_was_learned_from(tmp_path: Path) -> None:
    from jobs.self_train import self_train

    truth = make_scenes(tmp_path)
    tree = {
        "scenes": str(tmp_path / "scenes"),
        "vectors": {"uri": str(tmp_path / "roads.gpkg")},
        "background": "ground",
        "features": {"road": {"width": WIDTH}},
        "min_features": 1,
        "tiles": {"size": TILE},
        "split": {"block": 48, "share": 0.2, "seed": 1},
        "out": str(tmp_path / "weak"),
    }
    summary = rasterise(parse(RasteriseJobSettings, tree, "test"))
    assert set(summary["tiles"]) == {"labelled", "validation", "pool"}
    weak = tmp_path / "weak"
    names = ("labelled", "validation")
    exact = write_exact(tmp_path, truth)
    changed: dict[str, Any] = {
        "recipe": "mapping",
        "task": "segment",
        "data": {
            **{name: str(weak / f"{name}.parquet") for name in (*names, "pool")},
            "exact": str(exact / "images"),
            "masks": {name: str(weak / f"{name}_masks.parquet") for name in names} | {"exact": str(exact / "masks")},
            "classes": summary["classes"],
            "rows_per_shard": 20,
        },
        "teacher_model": {
            "model": "resnet8_cifar",
            "img_size": TILE,
            "model_args": {"width": 8},
            "decoder": "unet",
            "decoder_width": 8,
        },
        "teacher": fit(batch={"labelled": 16}),
        "student": fit(batch={"labelled": 8, "pseudo": 8}, noise={"pseudo": {"aa_num_ops": 1}}),
        "finetune": fit(batch={"labelled": 8}, steps=30, lr=0.02),
        "predict": {"batch_size": 16, "backend": "eager", "views": "flip"},
        "select": {"threshold": 0.2, "targets": "hard", "pixel_threshold": 0.6},
    }
    report: Any = self_train(small_settings(tmp_path, str(tmp_path / "store"), **changed))
    assert [one["validation"]["name"] for one in report["generations"]] == ["mean_iou"] * 3
    assert report["generations"][1]["pseudo_labels"] > 0
    names_of = [one["name"] for one in report["generations"]]
    assert names_of == ["weak", "round 1", "fine-tuned"]
    settings = parse(
        MapJobSettings,
        {
            "model": report["generations"][2]["model"],
            "scenes": str(tmp_path / "scenes"),
            "out": str(tmp_path / "maps"),
            "polygons": {"min_area": 1},
        },
        "test",
    )
    map_scenes(settings, pixel_model(settings))
    with rasterio.open(weak / "masks" / "a.tif") as raster:
        learned_from = iou(raster.read(1), truth)
    with rasterio.open(tmp_path / "maps" / "a_classes.tif") as raster:
        mapped = iou(raster.read(1), truth)
    assert learned_from < 0.65
    assert mapped > learned_from + 0.1, f"{mapped:.3f} from {learned_from:.3f}"
