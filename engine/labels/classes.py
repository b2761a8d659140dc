"""The class list: ordered class names, whose hash is stored in every table and checkpoint.

A class index is meaningful only with its class list, so tables of different lists are never combined: `check_same` reports the differences.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.ground.encodings import compose, composed
from engine.tables import schema

SHOWN = 5
"""Most names listed in a message."""


@dataclass(frozen=True)
class ClassList:
    """Ordered, distinct class names; the index of a class is its position. Raises ValueError for fewer than two or repeated names."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(composed(name) for name in self.names))
        if len(self.names) < 2:
            raise ValueError(f"a class list needs at least 2 classes, found {len(self.names)}: {_shown(self.names)}")
        seen: set[str] = set()
        repeated = sorted({name for name in self.names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
        if repeated:
            raise ValueError(f"class names must be distinct; more than once: {_shown(repeated)}")

    @classmethod
    def from_names(cls, seen: Iterable[str]) -> "ClassList":
        """The class list of the names in a labelled set: distinct and sorted, numerically if all are integers."""
        names = {composed(name) for name in seen}
        numeric = all(name.isascii() and name.isdigit() for name in names)
        return cls(tuple(sorted(names, key=lambda name: (int(name), name) if numeric else name)))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and composed(name) in self._indices

    @cached_property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of the names in order."""
        return hashlib.sha256(json.dumps(self.names, ensure_ascii=False).encode()).hexdigest()[:16]

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """The index of class `name`. Raises ValueError with the closest known name."""
        try:
            return self._indices[composed(name)]
        except KeyError:
            close = difflib.get_close_matches(name, self.names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {_shown(self.names)}"
            raise ValueError(f"{name!r} is not one of the {len(self)} classes; {hint}") from None

    def indices(self, names: pa.Array | pa.ChunkedArray, where: str) -> npt.NDArray[np.int64]:
        """Indices int64 (n,) of a column of class names, -1 where null. Raises ValueError naming `where` and the unknown names."""
        names = compose(names)
        found = pc.index_in(names, value_set=pa.array(self.names))
        unknown = pc.and_(pc.is_null(found), pc.is_valid(names))
        if pc.any(unknown).as_py():
            names_unknown = pc.unique(pc.filter(names, unknown)).to_pylist()
            raise ValueError(
                f"{where}: {len(names_unknown)} names are not among the {len(self)} classes: {_shown(sorted(names_unknown))}"
            )
        return np.asarray(pc.fill_null(found, -1)).astype(np.int64)

    def check_same(self, other: "ClassList", where: str) -> None:
        """Raise ValueError with the differences unless `other`, read from `where`, has the same classes in the same order."""
        if self.names == other.names:
            return
        missing, added = sorted(set(self.names) - set(other.names)), sorted(set(other.names) - set(self.names))
        if not missing and not added:
            position = next(
                i for i, (ours, theirs) in enumerate(zip(self.names, other.names, strict=True)) if ours != theirs
            )
            ours, theirs = self.names[position], other.names[position]
            detail = f"same names in another order, first at index {position}: {ours!r} here, {theirs!r} there"
        else:
            detail = "; ".join(
                f"{label} {_shown(names)}" for label, names in (("it lacks", missing), ("it adds", added)) if names
            )
        raise ValueError(f"{where}: its {len(other)} classes differ from the {len(self)} of this run: {detail}")

    def metadata(self) -> dict[bytes, bytes]:
        """Metadata of the schema of a table with these classes."""
        return {schema.NUM_CLASSES: str(len(self)).encode(), schema.CLASSES_HASH: self.hash.encode()}


def _shown(names: Iterable[str]) -> str:
    """The first SHOWN names, quoted, and the number of the others."""
    listed = list(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(repr(name) for name in listed[:SHOWN]) + more
