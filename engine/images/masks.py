"""The masks of a collection: images of class indices, listed like any other collection and matched to its images by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.images.manifest import Manifest

SHOWN = 5


class Masks(Protocol):
    """A mask for each of a collection's images. Pickles small."""

    @property
    def digest(self) -> str:
        """All that decides the masks."""

    def read(self, shards: Sequence[int] | None = None) -> pa.Table:
        """(shard, row, mask) of some shards (default: of all), in address order; `mask` is an encoded image of class indices."""


@dataclass(frozen=True, eq=False)
class MaskSet:
    """The masks of the images of `images`, each with its image's name and another ending. Pickles small.

    Raises ValueError, from every method, for an image without a mask, and for two masks of one name.
    """

    images: Manifest
    masks: Manifest

    @property
    def digest(self) -> str:
        return self.masks.digest

    def read(self, shards: Sequence[int] | None = None) -> pa.Table:
        """(shard, row, mask) of the images of some shards (default: of all), in address order; `mask` is encoded."""
        keys = self.images.keys(shards)
        place = self._places(keys["key"].to_pylist())
        first = np.concatenate([[0], np.cumsum(self.masks.rows, dtype=np.int64)])
        shard = np.searchsorted(first, place, side="right") - 1
        row = place - first[shard]
        found: list[bytes | None] = [None] * len(place)
        for one in np.unique(shard):
            mine = np.flatnonzero(shard == one)
            rows, back = np.unique(row[mine], return_inverse=True)
            encoded = [image for batch in self.masks.read(int(one), rows) for image in batch["image"].to_pylist()]
            for at, index in zip(mine, back, strict=True):
                found[at] = encoded[index]
        return pa.table([keys["shard"], keys["row"], pa.array(found, pa.binary())], names=["shard", "row", "mask"])

    def _places(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Position (n,) of the mask of each image."""
        places = [self._by_name.get(name_of(key), -1) for key in keys]
        if missing := [key for key, place in zip(keys, places, strict=True) if place < 0]:
            raise ValueError(
                f"{self.images.uri}: {len(missing)} images have no mask in {self.masks.uri}: {', '.join(missing[:SHOWN])}. A mask has its image's"
                " name with another ending, such as 0001.jpg and 0001.png."
            )
        return np.array(places, np.int64)

    @cached_property
    def _by_name(self) -> dict[str, int]:
        keys = self.masks.keys()["key"].to_pylist()
        found = {name_of(key): place for place, key in enumerate(keys)}
        if len(found) < len(keys):
            raise ValueError(f"{self.masks.uri}: {len(keys) - len(found)} masks have the name of another one")
        return found

    def __getstate__(self) -> dict[str, Manifest]:
        return {"images": self.images, "masks": self.masks}


def name_of(key: str) -> str:
    """The name by which an image and its mask are matched: the last part of the key without its ending."""
    return PurePosixPath(key).stem
