"""Memory and time of `jobs.map` on a scene of 20,000 x 20,000 pixels.

    python -m tests.benchmarks.map_memory --side 20000 --folder /scratch

The network is a comparison of bands, which takes no time, so that what is measured is reading, blending and writing; torch and the engine are loaded
as they are in the job. `--model FOLDER` maps with a real network. Prints the largest resident memory of the process.
"""

import argparse
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from engine.geo.bands import Pixels
from engine.geo.map_scene import Probabilities
from engine.geo.mapping import PixelModel, map_scenes
from engine.predict.pixels import pixel_model
from engine.settings.geo import MapJobSettings


def by_colour(windows: Pixels) -> Probabilities:
    """Two classes (n, 2, S, S): the first band is the brightest, or not."""
    first = (windows[..., 0].astype(np.float32) - windows[..., 1] + 255) / 510
    return np.stack([1 - first, first], axis=1)


def write_scene(path: Path, height: int, width: int) -> None:
    """A tiled GeoTIFF of smooth noise, a row of blocks at a time."""
    rng = np.random.default_rng(0)
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    grid = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.5, 0.5)}
    with rasterio.open(path, "w", width=width, height=height, count=3, dtype="uint8", **options, **grid) as sink:
        for top in range(0, height, 512):
            rows = min(512, height - top)
            small = rng.integers(0, 256, (3, -(-rows // 8), -(-width // 8)), dtype=np.uint8)
            values = small.repeat(8, axis=1).repeat(8, axis=2)[:, :rows, :width]
            sink.write(values, window=Window(0, top, width, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--height", type=int, help="rows of the scene (default: its side)")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", help="model folder of a network of pixels")
    options = parser.parse_args()
    scenes, out = options.folder / "scenes", options.folder / "out"
    scenes.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)
    height = options.height or options.side
    scene = scenes / f"{options.side}x{height}.tif"
    if not scene.exists():
        write_scene(scene, height, options.side)
    settings = MapJobSettings(scenes=str(scene), out=str(out), model=options.model or "none")
    model = pixel_model(settings) if options.model else PixelModel(by_colour, ["ground", "roof"], 256, "none")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    started = time.perf_counter()
    map_scenes(settings, model)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rate = options.side * height / seconds / 1e6
    print(
        f"{options.side} x {height} pixels: {seconds:.0f} s, {rate:.1f} Mpx/s, {peak:.0f} MiB, {before:.0f} MiB before"
    )


if __name__ == "__main__":
    main()
