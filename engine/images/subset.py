"""A subset of the images of a collection, by address."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Subset:
    """Distinct addresses int64 (n,), sorted: shard in the upper 32 bits, row in the lower. 8 bytes per image."""

    addresses: npt.NDArray[np.int64]

    @classmethod
    def of(cls, shard: npt.NDArray[np.integer], row: npt.NDArray[np.integer]) -> "Subset":
        """The images at (shard, row), each (n,) in any order; duplicates count once."""
        return cls(np.unique(shard.astype(np.int64) << 32 | row))

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex, for the fingerprint of a step that depends on it."""
        return hashlib.sha256(self.addresses.astype("<i8").tobytes()).hexdigest()

    @property
    def shards(self) -> npt.NDArray[np.int64]:
        """Shards of the images, ascending."""
        return np.unique(self.addresses >> 32)

    def rows(self, shard: int) -> npt.NDArray[np.int64]:
        """Rows of the images in `shard`, ascending."""
        start, stop = np.searchsorted(self.addresses, [shard << 32, (shard + 1) << 32])
        return self.addresses[start:stop] & 0xFFFFFFFF

    def holds(self, shard: npt.NDArray[np.integer], row: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Mask bool (n,) of the images at (shard, row), each (n,), that are in the subset."""
        return np.isin(shard.astype(np.int64) << 32 | row, self.addresses)
