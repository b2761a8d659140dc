"""Tables of tiles: a row per tile with its key and its URI, which every job reads as a collection.

labelled.parquet, labelled_masks.parquet       tiles with masks, and the same tiles of the masks, matched by key
validation.parquet, validation_masks.parquet   those of the validation blocks
pool.parquet                                   tiles without a mask, or with too few features to trust one
"""

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.geo.bands import BandScaling
from engine.geo.extra import geo_module
from engine.geo.scene import CACHE, Scene, open_raster
from engine.geo.split import BlockSplit
from engine.geo.tile import Ints, Tile, content_of, tile_grid
from engine.ground import storage
from engine.settings.geo import TilesSettings
from engine.tables.schema import IGNORE

TILES = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("contains", pa.string()),  # the class that most pixels have but for class 0; class 0 where there is no other
        ("features", pa.int64()),
        ("scene", pa.string()),
        ("left", pa.int64()),
        ("top", pa.int64()),
    ]
)
"""The columns of a table of tiles; `contains` and `features` are null where there is no mask."""
AS_IT_IS = BandScaling((1,))
NAMES = ("labelled", "validation", "pool")


@dataclass(frozen=True)
class MaskedScene:
    """A scene with what is seen of it, its mask and the features that each tile is judged by."""

    scene: Scene
    scaling: BandScaling
    mask: str | None = None
    features: Ints | None = None
    """Mapped features (n,) of each tile of its grid; None where masks are trusted."""
    min_features: int = 0


@dataclass
class TileTables:
    """The tables of all scenes, and how many tiles are in none of them, by reason."""

    settings: TilesSettings
    split: BlockSplit | None = None
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in NAMES})
    masks: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in NAMES})
    dropped: Counter[str] = field(default_factory=Counter)

    def grid(self, scene: Scene) -> Ints:
        """Left and top (n, 2) of the tiles of a scene."""
        return tile_grid(scene.width, scene.height, self.settings.size, self.settings.stride or self.settings.size)

    def add(self, masked: MaskedScene) -> None:
        """List the tiles of a scene."""
        scene, grid, size = masked.scene, self.grid(masked.scene), self.settings.size
        sides = self.split.sides(scene, grid, size) if self.split else ["train"] * len(grid)
        has_data = valid_shares(scene, grid, size) >= self.settings.min_valid
        content = content_of(scene.path)
        mask_content = content_of(masked.mask) if masked.mask else ""
        contains = MaskTiles(masked.mask, size).contains(grid) if masked.mask else [None] * len(grid)
        for number, (left, top) in enumerate(grid.tolist()):
            features = None if masked.features is None else int(masked.features[number])
            table, reason = self._place(sides[number], bool(has_data[number]), features, masked)
            if table in ("labelled", "validation") and contains[number] is None:
                table, reason = None, "all_ignored"
            if reason:
                self.dropped[reason] += 1
            if table is None:
                continue
            key = f"{scene.name}_{top}_{left}.tif"
            uri = scene.path + Tile(left, top, size, masked.scaling).fragment(content)
            about = (contains[number], features, scene.name, left, top)
            self.rows[table].append((key, uri, *about))
            if table != "pool":
                mask_uri = f"{masked.mask}{Tile(left, top, size, AS_IT_IS, IGNORE).fragment(mask_content)}"
                self.masks[table].append((key, mask_uri, *about))

    def _place(
        self, side: str, has_data: bool, features: int | None, masked: MaskedScene
    ) -> tuple[str | None, str | None]:
        """The table of a tile, and the reason that is counted for it."""
        if not has_data:
            return None, "no_data"
        if side == "border":
            return None, "border_of_split"
        is_validation = side == "validation"
        if masked.mask is None:
            return (None, "validation_without_mask") if is_validation else ("pool", None)
        if features is not None and features < masked.min_features:
            return None if is_validation else "pool", "few_features"
        return "validation" if is_validation else "labelled", None

    def check(self, is_labelled: bool) -> None:
        """Raise ValueError where there is no tile to learn from, or none to validate with."""
        wanted = "labelled" if is_labelled else "pool"
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items()) or "no tile at all"
        if not self.rows[wanted]:
            raise ValueError(
                f"no {wanted} tile is left ({why}). Lower min_features or tiles.min_valid, or make split.block or split.margin smaller."
            )
        if is_labelled and self.split and not self.rows["validation"]:
            raise ValueError(
                f"no validation tile is left ({why}): no tile of {self.settings.size} pixels lies inside the blocks that were drawn. Choose"
                " split.block several times a tile's side, raise split.share, or change split.seed."
            )

    def write(self, folder: str) -> None:
        """Write the tables that have rows into a folder, and remove those of an earlier run that have none."""
        fs, root = storage.resolve(folder)
        for name in NAMES:
            for table, rows in ((name, self.rows[name]), (f"{name}_masks", self.masks[name])):
                path = f"{root}/{table}.parquet"
                if rows:
                    storage.put(fs, path, _encoded(rows))
                elif storage.exists(fs, path):
                    fs.delete_file(path)

    @property
    def counts(self) -> dict[str, int]:
        """Tiles in each table that has any."""
        return {name: len(rows) for name, rows in self.rows.items() if rows}


class MaskTiles:
    """The tiles of a mask raster."""

    def __init__(self, path: str, size: int) -> None:
        self.path, self.size = path, size

    def contains(self, grid: Ints) -> list[str | None]:
        """Name (n,) of the class that each tile shows (`TILES`); None where all is ignored."""
        found: list[str | None] = []
        with geo_module("rasterio").Env(GDAL_CACHEMAX=CACHE), open_raster(self.path) as raster:
            names = json.loads(raster.tags().get("classes", "[]"))
            for left, top in grid.tolist():
                window = _inside(raster, left, top, self.size)
                mask = raster.read(1, window=geo_module("rasterio.windows").Window(*window))
                index = shown_class(np.bincount(mask.ravel(), minlength=256))
                found.append(None if index is None else names[index] if index < len(names) else str(index))
        return found


def shown_class(counts: npt.NDArray[np.int64]) -> int | None:
    """The class that a tile shows, of its pixels (256,) of each value."""
    classes = counts[:IGNORE]
    if not classes.any():
        return None
    return int(classes[1:].argmax()) + 1 if classes[1:].any() else 0


def valid_shares(scene: Scene, grid: Ints, size: int) -> npt.NDArray[np.float64]:
    """Share (n,) of the pixels of each tile that lie in the scene and have data."""
    shares: list[float] = []
    with geo_module("rasterio").Env(GDAL_CACHEMAX=CACHE), open_raster(scene.path) as raster:
        for left, top in grid.tolist():
            box = _inside(raster, left, top, size)
            if scene.has_holes:
                window = geo_module("rasterio.windows").Window(*box)
                shares.append(int(np.count_nonzero(raster.dataset_mask(window=window))) / size**2)
            else:
                shares.append(box[2] * box[3] / size**2)
    return np.array(shares)


def _inside(raster: Any, left: int, top: int, size: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part of a tile that lies in a raster."""
    return left, top, min(size, raster.width - left), min(size, raster.height - top)


def _encoded(rows: Sequence[tuple[Any, ...]]) -> memoryview:
    columns = [pa.array(column, kind.type) for column, kind in zip(zip(*rows, strict=True), TILES, strict=True)]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=TILES), sink, compression="zstd")
    return sink.getbuffer()
