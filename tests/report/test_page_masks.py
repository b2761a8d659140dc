"""Masks on the page: classes in their colours, and only those of the images that are shown."""

import base64
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store
from engine.report.page.masks import COLOURS, legend, mask_picture, read_masks
from engine.report.page.thumbnails import SIDE, PictureBudget
from engine.settings.cluster import ClusterSettings
from engine.tasks.mask_answers import FOLDER, MASKS, png


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def colour(place: int) -> list[int]:
    return [int(COLOURS[place][i : i + 2], 16) for i in (1, 3, 5)]


def test_classes_have_their_colours_and_confidence_is_grey() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[:16], mask[16:, 16:] = 1, len(COLOURS)  # the colours begin again
    found = mask_picture(png(mask), png(np.full((8, 8), 200, np.uint8)))
    shown = pixels(found.mask)
    assert shown.shape == (SIDE, SIDE, 3)
    assert shown[0, 0].tolist() == colour(1)
    assert shown[-1, 0].tolist() == shown[-1, -1].tolist() == colour(0)
    assert (pixels(found.confidence) == 200).all()
    assert legend(["a", "b"]) == (("a", COLOURS[0]), ("b", COLOURS[1]))


def test_only_the_masks_of_shown_images_are_read_within_the_budget(tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path)), "r", ClusterSettings())

    def work(step: Step) -> Output:
        one = png(np.zeros((8, 8), np.uint8))
        for shard in (0, 1):
            step.put_sidecar(FOLDER, shard, pa.table([list(range(5)), [one] * 5, [one] * 5], schema=MASKS))
        return step.commit([step.put_part(0, pa.table({"x": [0]}))], {}, 0.0)

    predictions = run.find_or_run_step("p", StepRecord("predict", 1), work)
    budget = PictureBudget()
    room = budget.bytes
    found = read_masks(predictions, run.store, [(0, 3), (1, 0), (1, 4)], budget)
    assert sorted(found) == [(0, 3), (1, 0), (1, 4)]
    assert budget.bytes == room - sum(len(one.mask) + len(one.confidence) for one in found.values())
    assert read_masks(predictions, run.store, [(0, 3)], PictureBudget(seconds=0)) == {}
