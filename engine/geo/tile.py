"""A tile: a square window of a scene, written as the scene's path and a fragment. It is never cut to a file.

    /scenes/a.tif#tile=512,0,256&bands=3,2,1&scale=0:3000,0:3000,0:3000&fill=0&of=1f0c…

left, top and side in pixels; the bands in their order and what of each becomes 0 and 255; the value outside the scene and where it has no data; and
the hash of the raster, by which a collection of tiles is another one when its scene changed.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.geo.bands import BandScaling
from engine.geo.extra import geo_module

FRAGMENT = re.compile(r"#tile=(\d+),(\d+),(\d+)&bands=(\d+(?:,\d+)*)(?:&scale=([^&#]+))?&fill=(\d+)(?:&of=[0-9a-f]+)?$")
MARK = "#tile="
CHUNK = 8 * 2**20

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tile:
    """A window of a scene, which may reach beyond its right and lower edge."""

    left: int
    top: int
    size: int
    scaling: BandScaling
    fill: int = 0
    """Value of pixels outside the scene and without data."""

    def fragment(self, content: str) -> str:
        """What follows the path of the scene. `content`: hash of the raster in hex."""
        limits = self.scaling.limits
        scale = "" if limits is None else "&scale=" + ",".join(f"{low!r}:{high!r}" for low, high in limits)
        bands = ",".join(map(str, self.scaling.bands))
        return f"{MARK}{self.left},{self.top},{self.size}&bands={bands}{scale}&fill={self.fill}&of={content}"


def split_tile(uri: str) -> tuple[str, Tile | None]:
    """The path of the raster and the tile that `uri` names; `uri` itself and None where it names none.

    Raises ValueError for a fragment of a tile that is not well formed.
    """
    if MARK not in uri:
        return uri, None
    found = FRAGMENT.search(uri)
    try:
        if found is None:
            raise ValueError("the fragment is not well formed")
        left, top, size = (int(found[n]) for n in (1, 2, 3))
        bands = tuple(int(band) for band in found[4].split(","))
        pairs = [one.split(":") for one in found[5].split(",")] if found[5] else []
        limits = tuple((float(low), float(high)) for low, high in pairs) or None
        if size < 1 or min(bands) < 1 or len(bands) not in (1, 3) or len(limits or bands) != len(bands):
            raise ValueError("one or three bands from 1, a scale per band, a side of at least 1")
    except ValueError as error:
        raise ValueError(
            f"{uri}: not a tile ({error}). It is written PATH#tile=LEFT,TOP,SIDE&bands=1,2,3&fill=0; jobs.tiles writes tables of them."
        ) from None
    return uri[: found.start()], Tile(left, top, size, BandScaling(bands, limits), int(found[6]))


def window_starts(extent: int, size: int, stride: int) -> list[int]:
    """Starts of windows of `size` that cover `extent` pixels: every `stride`, the last one moved back to end with the extent. A window larger than
    the extent starts at 0 and reaches beyond it."""
    last = max(extent - size, 0)
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def tile_grid(width: int, height: int, size: int, stride: int) -> Ints:
    """Left and top (n, 2) of the tiles of a scene, row by row."""
    tops, lefts = window_starts(height, size, stride), window_starts(width, size, stride)
    return np.array([(left, top) for top in tops for left in lefts], np.int64)


def count_features(features: Sequence[npt.NDArray[np.object_]], grid: Ints, size: int) -> Ints:
    """Features (n,) that meet each tile of a grid; a feature of two rules counts twice."""
    shapely = geo_module("shapely")
    counts = np.zeros(len(grid), np.int64)
    boxes = shapely.box(grid[:, 0], grid[:, 1], grid[:, 0] + size, grid[:, 1] + size)
    for geometries in features:
        if len(geometries):
            tiles, _ = shapely.STRtree(geometries).query(boxes, predicate="intersects")
            counts += np.bincount(tiles, minlength=len(grid))
    return counts


def content_of(path: str) -> str:
    """16 hex digits of the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:16]
