"""A map of each scene: OUT/SCENE_classes.tif, OUT/SCENE_confidence.tif, then OUT/SCENE.json, and OUT/SCENE.gpkg on request.

Finished bands are kept in OUT/.bands/SCENE-FINGERPRINT/ until the map is whole, so that a killed run goes back to the band where it was. The
fingerprint covers the scene, the model and the settings: what was made by others is not used.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from engine.geo.bands import choose_bands
from engine.geo.blend import Windows
from engine.geo.burn import count_values
from engine.geo.cog import Layer, Rows, write_cog
from engine.geo.extra import geo_module
from engine.geo.map_scene import Classify, Grid, SceneMapper
from engine.geo.polygons import write_polygons
from engine.geo.scene import CACHE, Scene, list_scenes, open_raster
from engine.ground import storage
from engine.ground.progress import Progress, log_event
from engine.ground.record import canonical, fingerprint, json_text
from engine.ground.uri import split_uri
from engine.settings.geo import MapJobSettings
from engine.tables.schema import IGNORE

REVISION = 1
LOCAL = pafs.LocalFileSystem()


@dataclass(frozen=True)
class PixelModel:
    """A network of pixels, ready to run."""

    classify: Classify
    classes: list[str]
    size: int
    """Side of its windows in pixels."""
    digest: str
    """Hash of its weights."""


def map_scenes(settings: MapJobSettings, model: PixelModel) -> list[dict[str, Any]]:
    """Map every scene that is not mapped yet; returns the records of all. Raises ValueError for scenes that cannot be mapped, before the first is."""
    parts = split_uri(settings.out)
    if parts.scheme:
        raise ValueError(f"out={settings.out}: maps are written to a local or mounted folder. Give a path.")
    out = Path(parts.path).absolute()
    scenes = list_scenes(settings.scenes, settings.out)
    jobs = [SceneJob(settings, model, scene, out) for scene in scenes]
    for job in jobs:
        job.check()
    return [job.run() for job in jobs]


@dataclass(frozen=True)
class SceneJob:
    """The map of one scene."""

    settings: MapJobSettings
    model: PixelModel
    scene: Scene
    out: Path

    def check(self) -> None:
        """Raise ValueError for bands and windows that are not possible."""
        choose_bands(self.scene, self.settings.bands)
        self.grid()

    def grid(self) -> Grid:
        """The windows of the scene."""
        overlap = self.model.size // 4 if self.settings.overlap is None else self.settings.overlap
        trim = overlap // 4 if self.settings.trim is None else self.settings.trim
        rows, columns = (
            Windows(extent, self.model.size, overlap, trim) for extent in (self.scene.height, self.scene.width)
        )
        return Grid(rows, columns, self.settings.batch_size)

    def run(self) -> dict[str, Any]:
        """The record of the map; what of it is there already is not made again."""
        name, path = self.fingerprint(), f"{self.out}/{self.scene.name}.json"
        record = _read(path) or {}
        if record.get("fingerprint") == name and all((self.out / one).is_file() for one in record["files"].values()):
            log_event("map", f"{self.scene.name}: mapped before; delete {path} to map it again")
        else:
            Path(path).unlink(missing_ok=True)
            bands = BandFiles(self.out / ".bands", self.scene.name, name, self.scene.width)
            self._predict(bands)
            record = {"fingerprint": name, **self._assemble(bands)}
            _write(path, record)
            bands.remove()
        wanted = self.settings.polygons
        if wanted is not None and record.get("polygons") != wanted.model_dump():
            target = self.out / f"{self.scene.name}.gpkg"
            found = write_polygons(self.out / record["files"]["classes"], self.model.classes, wanted, target)
            log_event("map", f"{self.scene.name}: {found:,} polygons in {target}")
            record |= {"polygons": wanted.model_dump(), "files": {**record["files"], "polygons": target.name}}
            _write(path, record)
        return record

    def fingerprint(self) -> str:
        """Of everything that decides the rasters."""
        status = os.stat(self.scene.path)
        return fingerprint(
            {
                "revision": REVISION,
                "scene": [self.scene.path, status.st_size, status.st_mtime_ns],
                "model": self.model.digest,
                "settings": self.settings.model_dump(mode="json", exclude={"scenes", "out", "model", "polygons"}),
            }
        )

    def _predict(self, bands: "BandFiles") -> None:
        scaling = choose_bands(self.scene, self.settings.bands)
        with geo_module("rasterio").Env(GDAL_CACHEMAX=CACHE), open_raster(self.scene.path) as raster:
            mapper = SceneMapper(raster, scaling, self.grid(), self.model.classify, len(self.model.classes))
            done = bands.count_finished(len(mapper.strips))
            progress = Progress(f"map {self.scene.name}", len(mapper.strips), "bands", done=done)
            for number in range(done, len(mapper.strips)):
                bands.put(number, mapper.band(number))
                progress.add(1, images=len(mapper.grid.columns.starts))

    def _assemble(self, bands: "BandFiles") -> dict[str, Any]:
        """Write the rasters of the map from its bands; what is known of them."""
        classes, confidence = (self.out / f"{self.scene.name}_{kind}.tif" for kind in ("classes", "confidence"))
        names = self.model.classes
        counts = np.zeros(256, np.int64)

        def rows(plane: int) -> Iterator[Rows]:
            for band in bands.read():
                if plane == 0:
                    counts[:] += count_values(band[0])
                yield band[plane]

        write_cog(classes, self.scene, Layer(IGNORE, "mode", {"classes": canonical(names)}, has_palette=True), rows(0))
        unit = {"unit": "255 x probability of the class"}
        write_cog(confidence, self.scene, Layer(0, "average", unit), rows(1))
        made = {"classes": classes.name, "confidence": confidence.name}
        pixels = {name: int(counts[index]) for index, name in enumerate(names)}
        log_event(
            "map", f"{self.scene.name}: {', '.join(f'{name} {count:,}' for name, count in pixels.items())} pixels"
        )
        return {"scene": self.scene.path, "files": made, "pixels": {**pixels, "no_data": int(counts[IGNORE])}}


class BandFiles:
    """The finished bands of an unfinished map, a file each, written whole."""

    def __init__(self, folder: Path, scene: str, name: str, width: int) -> None:
        self.root, self.scene, self.width = folder, scene, width
        self.folder = folder / f"{scene}-{name}"
        for other in folder.iterdir() if folder.is_dir() else ():
            if other != self.folder and other.name.rpartition("-")[0] == scene:
                shutil.rmtree(other)  # of another model, or other settings

    def path(self, number: int) -> str:
        return f"{self.folder}/{number:06d}.band"

    def put(self, number: int, band: Rows) -> None:
        """Keep a band uint8 (2, rows, width)."""
        packed = pa.compress(np.ascontiguousarray(band).tobytes(), codec="zstd", asbytes=True)
        storage.put(LOCAL, self.path(number), band.shape[1].to_bytes(4, "little") + packed)

    def count_finished(self, total: int) -> int:
        """Bands from the first one on that are there."""
        return next((number for number in range(total) if not os.path.exists(self.path(number))), total)

    def read(self) -> Iterator[Rows]:
        """The bands uint8 (2, rows, width) in their order."""
        for name in storage.names(LOCAL, str(self.folder)):
            data = storage.get(LOCAL, f"{self.folder}/{name}")
            shape = (2, int.from_bytes(data[:4], "little"), self.width)
            values = pa.decompress(data[4:], int(np.prod(shape)), codec="zstd", asbytes=True) if shape[1] else b""
            yield np.frombuffer(values, np.uint8).reshape(shape)

    def remove(self) -> None:
        """Forget the bands."""
        shutil.rmtree(self.folder)
        if not any(self.root.iterdir()):
            self.root.rmdir()


def _read(path: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(storage.get(LOCAL, path))
    except (FileNotFoundError, ValueError):
        return None
    return found


def _write(path: str, record: dict[str, Any]) -> None:
    storage.put(LOCAL, path, json_text(record, indent=2).encode())
