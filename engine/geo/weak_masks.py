"""What `jobs.rasterise` and `jobs.tiles` do: scenes to masks and tables of tiles."""

from pathlib import Path
from typing import Any

import numpy as np

from engine.geo.bands import choose_bands
from engine.geo.burn import Burner, write_mask
from engine.geo.extra import geo_module
from engine.geo.listing import MaskedScene, TileTables
from engine.geo.scene import Scene, list_scenes, match_masks
from engine.geo.split import BlockSplit
from engine.geo.tile import count_features
from engine.geo.vectors import DrawnFeatures, Geometries, VectorLayer
from engine.ground import storage
from engine.ground.progress import Progress
from engine.ground.record import json_text
from engine.settings.geo import RasteriseJobSettings, SplitSettings, TilesJobSettings
from engine.tables.schema import IGNORE

SUMMARY = "summary.json"


def rasterise(settings: RasteriseJobSettings) -> dict[str, Any]:
    """Write OUT/masks/SCENE.tif for every scene, tables of tiles and a summary, which is returned.

    Raises ValueError for what is wrong with scenes and vectors, and where no feature lies on any scene.
    """
    scenes, layer = list_scenes(settings.scenes, settings.out), VectorLayer(settings.vectors)
    views = [choose_bands(scene, settings.bands) for scene in scenes]  # what is wrong is said before anything is drawn
    tables = TileTables(settings.tiles, _split(settings.split))
    folder = Path(settings.out).expanduser().absolute() / "masks"
    folder.mkdir(parents=True, exist_ok=True)
    progress, pixels, features = Progress("rasterise", len(scenes), "scenes"), np.zeros(256, np.int64), 0
    for scene, view in zip(scenes, views, strict=True):
        layers = draw_all(layer, scene, settings)
        features += sum(count_inside(one.features, scene) for one in layers)
        path = folder / f"{scene.name}.tif"
        pixels += write_mask(scene, Burner(layers, settings.absent), settings.classes, path)
        counts = count_features([one.features for one in layers], tables.grid(scene), settings.tiles.size)
        tables.add(MaskedScene(scene, view, str(path), counts, settings.min_features))
        progress.add(1)
    if not features:
        raise ValueError(layer.explain_no_overlap(scenes))
    tables.check(is_labelled=True)
    named = {name: int(pixels[index]) for index, name in enumerate(settings.classes)}
    shares = {"classes": settings.classes, "pixels": {**named, "ignored": int(pixels[IGNORE])}, "features": features}
    return _finish(settings.out, tables, {"scenes": len(scenes), **shares})


def draw_all(layer: VectorLayer, scene: Scene, settings: RasteriseJobSettings) -> list[DrawnFeatures]:
    """The features of every rule on a scene, in drawing order."""
    classes = settings.classes
    return [layer.draw(scene, classes.index(rule.label or name), rule) for name, rule in settings.features.items()]


def count_inside(features: Geometries, scene: Scene) -> int:
    """Features that meet a scene; others are near enough for their width to reach it."""
    shapely = geo_module("shapely")
    return int(shapely.intersects(features, shapely.box(0, 0, scene.width, scene.height)).sum())


def list_tiles(settings: TilesJobSettings) -> dict[str, Any]:
    """Write tables of the tiles of scenes, with masks or as a pool, and a summary, which is returned. Raises ValueError."""
    scenes = list_scenes(settings.scenes, settings.out)
    masks = match_masks(scenes, settings.masks) if settings.masks else [None] * len(scenes)
    views = [choose_bands(scene, settings.bands) for scene in scenes]
    tables = TileTables(settings.tiles, _split(settings.split))
    progress = Progress("tiles", len(scenes), "scenes")
    for scene, view, mask in zip(scenes, views, masks, strict=True):
        tables.add(MaskedScene(scene, view, mask))
        progress.add(1)
    tables.check(is_labelled=settings.masks is not None)
    return _finish(settings.out, tables, {"scenes": len(scenes)})


def _split(settings: SplitSettings | None) -> BlockSplit | None:
    return None if settings is None else BlockSplit(settings)


def _finish(out: str, tables: TileTables, about: dict[str, Any]) -> dict[str, Any]:
    tables.write(out)
    summary = {**about, "tiles": tables.counts, "not_used": dict(tables.dropped)}
    fs, root = storage.resolve(out)
    storage.put(fs, f"{root}/{SUMMARY}", json_text(summary, indent=2).encode())
    return summary
