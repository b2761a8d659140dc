"""A model over whole scenes: georeferenced rasters of classes and confidence, and polygons on request.

    python -m jobs.map jobs/configs/map.yaml model=/models/roads scenes=/scenes out=/maps polygons.min_area=20

OUT/SCENE_classes.tif (255: no data) and OUT/SCENE_confidence.tif (255 x probability of the class; 0: no data) are cloud-optimised GeoTIFFs on the
scene's grid. Memory does not grow with the height of a scene. After a kill, run it again: finished bands are not computed twice, and the files are
the same byte for byte. No cluster is needed.
"""

from engine.geo.mapping import map_scenes
from engine.geo.scene import list_scenes
from engine.ground.progress import log_event
from engine.predict.pixels import pixel_model
from engine.settings.block import load
from engine.settings.geo import MapJobSettings
from jobs import cli


def main() -> None:
    arguments = cli.parser("map", __doc__, MapJobSettings).parse_args()
    settings = load(MapJobSettings, arguments.config, arguments.overrides)
    list_scenes(settings.scenes, settings.out)  # what is wrong with them is said before the model is loaded
    records = map_scenes(settings, pixel_model(settings))
    log_event("done", f"{len(records)} scenes mapped in {settings.out}")


if __name__ == "__main__":
    cli.run(main)
