"""Small pictures for the page: read from the collection, decoded under the engine's limits, and encoded anew. Original bytes never reach the page."""

import base64
import io
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from engine.images.collection import Collection
from engine.images.decode import Encoded, decode_full_size, decode_reduced
from engine.images.errors import RejectedImageError

SIDE = 96
"""Longest side of a thumbnail in pixels."""
QUALITY = 70
Address = tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, or in its place the reason why there is none. `key` and `label` as the collection has them."""

    key: str = ""
    uri: str | None = None
    width: int = 0
    height: int = 0
    problem: str | None = None
    label: str | None = None


@dataclass
class PictureBudget:
    """What pictures may cost the page: `seconds` of reading from the first one on, and `bytes` of data URIs."""

    seconds: float = 20.0
    bytes: int = 5 * 2**20
    _until: float | None = field(default=None, init=False)

    def refusal(self) -> str | None:
        """Why no more picture is read; None while there is time and room."""
        if self._until is None:
            self._until = time.monotonic() + self.seconds
        if time.monotonic() >= self._until:
            return f"not read: the {self.seconds:g} s for pictures were used up"
        return "not shown: the page's room for pictures is used up" if self.bytes <= 0 else None

    def spend(self, picture: Picture) -> None:
        """Count a picture."""
        self.bytes -= len(picture.uri or "")


def read_pictures(collection: Collection, wanted: Iterable[Address], budget: PictureBudget) -> dict[Address, Picture]:
    """The pictures at some addresses, shard by shard, the shard of most pictures first. An unreadable one has its problem."""
    rows: dict[int, set[int]] = defaultdict(set)
    for shard, row in wanted:
        rows[shard].add(row)
    found: dict[Address, Picture] = {}
    for shard in sorted(rows, key=lambda one: (-len(rows[one]), one)):
        if (refusal := budget.refusal()) is not None:
            found |= {(shard, row): Picture(problem=refusal) for row in rows[shard]}
            continue
        try:
            found |= _read_shard(collection, shard, sorted(rows[shard]), budget)
        except (OSError, ValueError) as error:
            problem = Picture(problem=f"not readable: {error}")
            found |= {(shard, row): problem for row in rows[shard] if (shard, row) not in found}
    return found


def _read_shard(collection: Collection, shard: int, rows: list[int], budget: PictureBudget) -> dict[Address, Picture]:
    found: dict[Address, Picture] = {}
    for batch in collection.manifest.read(shard, np.array(rows)):
        columns = (batch.column(name) for name in ("row", "key", "image", "label"))
        for row, key, image, label in zip(*columns, strict=True):
            refusal = budget.refusal()
            picture = (
                Picture(key.as_py() or "", problem=refusal, label=label.as_py())
                if refusal
                else thumbnail(image.as_buffer(), key.as_py() or "", label.as_py())
            )
            budget.spend(picture)
            found[shard, row.as_py()] = picture
    return found


def thumbnail(data: Encoded, key: str = "", label: str | None = None) -> Picture:
    """A JPEG of at most SIDE pixels a side, upright, without metadata; or the reason why the image cannot be decoded."""
    try:
        pixels = decode_reduced(data, SIDE)
        image = Image.fromarray(decode_full_size(data) if pixels is None else pixels)
    except RejectedImageError as error:
        return Picture(key, problem=error.reason, label=label)
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    uri = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(key, uri, image.width, image.height, label=label)
