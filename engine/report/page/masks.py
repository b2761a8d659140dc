"""Predicted masks for the pictures of a run that learns pixels: the classes in colours, and the confidence in grey."""

import base64
import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from engine.ground.steps import Output, Store
from engine.images.decode import decode_mask_full_size
from engine.report.page.thumbnails import SIDE, Address, PictureBudget
from engine.tasks.mask_answers import FOLDER

COLOURS = ("#56b4e9", "#d55e00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#e69f00", "#000000")
"""Of the classes in their order (Okabe, Ito: Color universal design, 2008), from the first again after the last."""


@dataclass(frozen=True)
class MaskPicture:
    """A mask and the confidence of its pixels as data URIs."""

    mask: str
    confidence: str


def read_masks(
    predictions: Output, store: Store, wanted: Iterable[Address], budget: PictureBudget
) -> dict[Address, MaskPicture]:
    """The masks predicted for some images, shard by shard, while there is time and room; none of those that are not stored."""
    rows: dict[int, set[int]] = defaultdict(set)
    for shard, row in wanted:
        rows[shard].add(row)
    found: dict[Address, MaskPicture] = {}
    for shard in sorted(rows, key=lambda one: (-len(rows[one]), one)):
        path = f"{predictions.folder}/{FOLDER}/{shard:08d}.parquet"
        if budget.refusal() is not None:
            break
        mine = pc.field("row").isin(sorted(rows[shard]))
        for stored in pq.read_table(path, filesystem=store.fs, filters=mine, use_threads=False).to_pylist():
            made = mask_picture(stored["mask"], stored["confidence"])
            found[shard, stored["row"]] = made
            budget.bytes -= len(made.mask) + len(made.confidence)
    return found


def mask_picture(mask: bytes, confidence: bytes) -> MaskPicture:
    """The stored PNGs of class indices and of confidence (0-255) as small pictures."""
    classes = Image.fromarray(decode_mask_full_size(mask) % len(COLOURS), "P")
    classes.putpalette([int(colour[i : i + 2], 16) for colour in COLOURS for i in (1, 3, 5)])
    return MaskPicture(_uri(classes), _uri(Image.fromarray(decode_mask_full_size(confidence), "L")))


def legend(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Name and colour of each class."""
    return tuple((name, COLOURS[place % len(COLOURS)]) for place, name in enumerate(names))


def _uri(image: Image.Image) -> str:
    size: npt.NDArray[np.int64] = np.array(image.size) * SIDE // max(image.size)
    file = io.BytesIO()
    image.resize((max(1, int(size[0])), max(1, int(size[1]))), Image.Resampling.NEAREST).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
