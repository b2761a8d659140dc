"""Weak masks from vectors, and tables of tiles to learn them from.

    python -m jobs.rasterise jobs/configs/rasterise.yaml scenes=/scenes vectors.uri=/maps/roads.gpkg out=/weak

OUT/masks/SCENE.tif lies on the scene's grid: 0 where nothing is mapped, 255 where nothing is known. Tables of tiles (windows of scenes, never cut to
files) are collections for every job: data.labelled=OUT/labelled.parquet data.masks.labelled=OUT/labelled_masks.parquet data.pool=OUT/pool.parquet.
"""

from engine.geo.weak_masks import rasterise
from engine.ground.progress import log_event
from engine.settings.block import load
from engine.settings.geo import RasteriseJobSettings
from jobs import cli
from jobs.tiles import log_tables


def main() -> None:
    arguments = cli.parser("rasterise", __doc__, RasteriseJobSettings).parse_args()
    settings = load(RasteriseJobSettings, arguments.config, arguments.overrides)
    summary = rasterise(settings)
    total = sum(summary["pixels"].values())
    shown = ", ".join(f"{name} {100 * count / total:.2f} %" for name, count in summary["pixels"].items())
    log_event("rasterise", f"{summary['features']:,} features on {summary['scenes']} scenes; pixels: {shown}")
    log_tables(settings.out, summary)
    log_event("done", f"data.classes=[{','.join(summary['classes'])}]")


if __name__ == "__main__":
    cli.run(main)
