"""Georeferenced scenes and a map of lines, as one has them of a real place, from pictures with road masks.

    python -m tests.benchmarks.road_scenes ../shared/data/roads --out /scratch/roads

The pictures become GeoTIFFs side by side in a UTM zone (OUT/scenes), their masks rasters on the same grids (OUT/masks). Centre lines are traced from
the masks (Zhang and Suen's thinning, then from junction to junction), each line is moved by up to `--jitter` pixels, a share `--dropped` of the
lines is thrown away, and what remains is OUT/roads.gpkg.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import rasterio
import shapely
from PIL import Image
from rasterio.transform import from_origin

CRS, LEFT, TOP, PIXEL = "EPSG:32632", 500_000.0, 5_400_000.0, 0.5
PER_ROW = 10
SHORTEST = 8
"""Pixels below which a line is a spur of the thinning, not a road."""

Thin = npt.NDArray[np.bool_]
Pixel = tuple[int, int]


def thinned(mask: Thin) -> Thin:
    """Lines one pixel wide (Zhang and Suen, A fast parallel algorithm for thinning digital patterns, 1984)."""
    image = np.pad(mask, 1)
    while True:
        before = image.sum()
        for step in (0, 1):
            ring = [np.roll(image, shift, (0, 1)) for shift in ((1, 0), (1, -1), (0, -1), (-1, -1))]
            ring += [np.roll(image, shift, (0, 1)) for shift in ((-1, 0), (-1, 1), (0, 1), (1, 1))]
            north, _, east, _, south, _, west, _ = ring
            count = np.sum(ring, axis=0)
            changes = np.sum([~one & other for one, other in zip(ring, [*ring[1:], ring[0]], strict=True)], axis=0)
            first, second = ((north, east, south), (east, south, west)), ((north, east, west), (north, south, west))
            open_sides = np.logical_and.reduce([~np.logical_and.reduce(sides) for sides in (second if step else first)])
            image = image & ~((count >= 2) & (count <= 6) & (changes == 1) & open_sides)
        if image.sum() == before:
            return image[1:-1, 1:-1]


def traced(thin: Thin) -> list[list[Pixel]]:
    """The lines (row, column) between the ends and junctions of a thinned mask."""
    pixels = {(int(y), int(x)) for y, x in np.argwhere(thin)}

    def around(pixel: Pixel) -> list[Pixel]:
        y, x = pixel
        near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
        return [one for one in near if one in pixels]

    nodes = {pixel for pixel in pixels if len(around(pixel)) != 2}
    lines, used = [], set()
    for node in sorted(nodes):
        for step in around(node):
            if (node, step) in used:
                continue
            line, before = [node, step], node
            while line[-1] not in nodes:
                after = [one for one in around(line[-1]) if one != before and one not in line[-3:]]
                if not after:
                    break
                before = line[-1]
                line.append(after[0])
            used |= {(node, step), (line[-1], line[-2])}
            lines.append(line)
    return [line for line in lines if len(line) >= SHORTEST]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roads", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jitter", type=float, default=3.0)
    parser.add_argument("--dropped", type=float, default=0.3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    found = []
    for number, path in enumerate(sorted((options.roads / "images").glob("*.jpg"))):
        picture = np.asarray(Image.open(path).convert("RGB"))
        mask = np.asarray(Image.open(options.roads / "masks" / f"{path.stem}.png")) > 0
        height, width = mask.shape
        corner = (LEFT + number % PER_ROW * width * PIXEL, TOP - number // PER_ROW * height * PIXEL)
        shape = {"height": height, "width": width, "dtype": "uint8", "crs": CRS, "driver": "GTiff"}
        for folder, values in (("scenes", picture.transpose(2, 0, 1)), ("masks", mask[None].astype(np.uint8))):
            (options.out / folder).mkdir(parents=True, exist_ok=True)
            target = options.out / folder / f"{path.stem}.tif"
            transform = from_origin(*corner, PIXEL, PIXEL)
            with rasterio.open(target, "w", count=len(values), transform=transform, **shape) as sink:
                sink.write(values)
        for line in traced(thinned(mask)):
            points = np.array(line, float)[:, ::-1] + 0.5 + rng.uniform(-options.jitter, options.jitter, 2)
            if rng.random() >= options.dropped:
                found.append(shapely.LineString(corner + points * (PIXEL, -PIXEL)))
    lines = shapely.simplify(np.array(found, object), PIXEL)
    target = options.out / "roads.gpkg"
    target.unlink(missing_ok=True)
    pyogrio.raw.write(
        str(target),
        geometry=shapely.to_wkb(lines),
        field_data=[np.array(["road"] * len(lines), object)],
        fields=["kind"],
        crs=CRS,
        driver="GPKG",
        layer="roads",
        geometry_type="LineString",
    )
    print(f"{number + 1} scenes, {len(lines)} lines in {options.out}")


if __name__ == "__main__":
    main()
