"""Tables of tiles: windows of scenes as a pool, or as labelled images with masks.

    python -m jobs.tiles jobs/configs/tiles.yaml scenes=/scenes out=/pool
    python -m jobs.tiles jobs/configs/tiles.yaml scenes=/scenes masks=/masks out=/true

A tile is a row with a URI such as /scenes/a.tif#tile=512,0,256&bands=1,2,3&fill=0, and is read from its scene when it is needed.
"""

from typing import Any

from engine.geo.weak_masks import list_tiles
from engine.ground.progress import log_event
from engine.settings.block import load
from engine.settings.geo import TilesJobSettings
from jobs import cli


def main() -> None:
    arguments = cli.parser("tiles", __doc__, TilesJobSettings).parse_args()
    settings = load(TilesJobSettings, arguments.config, arguments.overrides)
    log_tables(settings.out, list_tiles(settings))


def log_tables(out: str, summary: dict[str, Any]) -> None:
    """Say how many tiles are in which table, and why others are in none."""
    for name, count in summary["tiles"].items():
        log_event("tiles", f"{count:,} in {out}/{name}.parquet")
    if summary["not_used"]:
        counted = ", ".join(f"{count:,} {reason}" for reason, count in summary["not_used"].items())
        log_event("tiles", f"counted: {counted}")


if __name__ == "__main__":
    cli.run(main)
