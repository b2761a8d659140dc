"""Which images of a collection a verb works on: what is read, what is left out and why, and how many may be rejected."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.images import corruptions
from engine.images.collection import Collection
from engine.images.decode import Pixels, content_hash
from engine.images.manifest import Manifest
from engine.images.overlap import ExclusionSet
from engine.images.subset import Subset


@dataclass(frozen=True, eq=False)
class Scope:
    """The images of `collection` that a verb works on. Pickles small, as its manifest does."""

    collection: Collection
    exclusions: ExclusionSet | None = None
    """Images left out wherever they stand in the collection."""
    chosen: Subset | None = None
    """The rows to read (default: all); shards without any are not read."""
    corruption: tuple[str, int] | None = None
    """Family and severity (`images.corruptions`) applied to every decoded image."""
    max_rejected_percent: float = 1.0
    """Rejected images per 100 seen above which a step fails. Decides nothing that is read."""

    @property
    def name(self) -> str:
        return self.collection.name

    @property
    def manifest(self) -> Manifest:
        return self.collection.manifest

    @property
    def uri(self) -> str:
        return self.manifest.uri

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Digests of the tables that decide what is read, as a step's record names them."""
        digests = {
            "images": self.collection.digest,
            "held": "none" if self.exclusions is None else self.exclusions.digest,
        }
        if self.chosen is not None:
            digests["only"] = self.chosen.digest
        return digests

    @cached_property
    def digest(self) -> str:
        """Names all that decides what is read and what the pixels are; equal scopes have equal digests."""
        parts = [self.collection.digest]
        if self.exclusions is not None:
            parts.append(self.exclusions.digest)
        if self.chosen is not None:
            parts.append(f"only-{self.chosen.digest}")
        if self.corruption is not None:
            parts.append("{}-{}".format(*self.corruption))
        return "-".join(parts)

    @cached_property
    def shards(self) -> npt.NDArray[np.int64]:
        """Shards to read, ascending."""
        return np.arange(self.manifest.num_shards) if self.chosen is None else self.chosen.shards

    @property
    def num_images(self) -> int:
        """Images to read, those that will be rejected or excluded among them."""
        return self.manifest.num_rows if self.chosen is None else len(self.chosen.addresses)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """Positions (n,) in address order, within the collection, of the images to read."""
        if self.chosen is None:
            return np.arange(self.manifest.num_rows)
        shard, row = self.chosen.addresses >> 32, self.chosen.addresses & 0xFFFFFFFF
        return self.collection.positions(shard, row)

    def read(self, shard: int, batch_rows: int = 256) -> Iterator[pa.RecordBatch]:
        """The encoded images of a shard as batches of schema.IMAGES in address order. Raises ValueError as `Manifest.read` does."""
        rows = None if self.chosen is None else self.chosen.rows(shard)
        return self.manifest.read(shard, rows, batch_rows)

    def reason(self, key: str, image: pa.Buffer | None) -> str | None:
        """Why an encoded image is excluded (`excluded: also in test`); None for one that is not, or that cannot be had."""
        if self.exclusions is None or image is None:
            return None
        return self.exclusions.reason(key if self.manifest.has_keys else None, content_hash(image))

    def corrupted(self, pixels: Pixels, image: pa.Buffer) -> Pixels:
        """uint8 (S, S, 3) of one decoded image after the corruption, drawn from the encoded image's hash."""
        if self.corruption is None:
            return pixels
        return corruptions.corrupt(pixels, *self.corruption, seed=content_hash(image))

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}
