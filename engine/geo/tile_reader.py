"""The pixels of tiles, as encoded images like those of any other collection: PPM, or PGM of one band, which cost nothing to encode or decode."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np

from engine.geo.bands import Pixels, read_window
from engine.geo.extra import geo_module
from engine.geo.scene import CACHE, open_raster
from engine.geo.tile import Tile

MOST_OPEN = 32
"""Rasters that are kept open, several times where several threads read one: a raster serves one thread at a time."""


class TileReader:
    """Reads tiles of rasters on local paths, from several threads."""

    def __init__(self) -> None:
        self._idle: OrderedDict[int, tuple[str, Any]] = OrderedDict()
        self._lock = Lock()

    def read(self, path: str, tile: Tile) -> bytes | None:
        """The encoded tile; None when the raster or the window cannot be read. Raises ValueError where rasterio is not installed."""
        rasterio = geo_module("rasterio")
        try:
            with rasterio.Env(GDAL_CACHEMAX=CACHE), self._open(path) as raster:
                return encode(read_tile(raster, tile))
        except (ValueError, IndexError, rasterio.errors.RasterioError):
            return None

    @contextmanager
    def _open(self, path: str) -> Iterator[Any]:
        """The raster, for this thread alone; kept open afterwards unless reading failed."""
        with self._lock:
            key = next((key for key, (known, _) in self._idle.items() if known == path), None)
            raster = None if key is None else self._idle.pop(key)[1]
        raster = open_raster(path) if raster is None else raster
        try:
            yield raster
        except BaseException:
            raster.close()
            raise
        with self._lock:
            self._idle[id(raster)] = (path, raster)
            old = self._idle.popitem(last=False)[1][1] if len(self._idle) > MOST_OPEN else None
        if old is not None:
            old.close()


def read_tile(raster: Any, tile: Tile) -> Pixels:
    """uint8 (size, size, B) of a tile of an open raster. Raises ValueError for one that does not meet it."""
    width, height = min(tile.size, raster.width - tile.left), min(tile.size, raster.height - tile.top)
    if width < 1 or height < 1:
        raise ValueError("the tile lies outside the raster")
    pixels, valid = read_window(raster, tile.scaling, (tile.left, tile.top, width, height))
    pixels[~valid] = tile.fill
    if (height, width) == (tile.size, tile.size):
        return pixels
    whole = np.full((tile.size, tile.size, pixels.shape[2]), tile.fill, np.uint8)
    whole[:height, :width] = pixels
    return whole


def encode(pixels: Pixels) -> bytes:
    """uint8 (h, w, 3) as PPM, or (h, w, 1) as PGM."""
    height, width, bands = pixels.shape
    return b"P%d %d %d 255\n" % (6 if bands == 3 else 5, width, height) + pixels.tobytes()
