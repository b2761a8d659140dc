"""Hashtags as labels: one name for what is one thing, k tags as k entries of 1/k, rare tags drawn more often (Mahajan et al. 2018; METHODS §5).

An image's tags are held flat: `lengths` (N,) tags an image, and all tags one after the other.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.ground.progress import log_event
from engine.labels.by_key import read_table
from engine.labels.classes import ClassList

Ints = npt.NDArray[np.int64]
Resample = Literal["natural", "sqrt", "uniform"]

SEPARATORS = r"[\s,;]+"
BISECTIONS = 60


def normalised(tag: str) -> str:
    """#Brown_Bear, brown-bear and "Brown Bear" as one: compatibility form, case folded, without #, spaces, hyphens and underscores."""
    folded = unicodedata.normalize("NFKC", tag).casefold()
    return "".join(char for char in folded if char not in "#-_" and not char.isspace())


class Synonyms:
    """Tags that mean the same, and the one name of each group: the smallest of the names that the table calls canonical.

    Groups are closed under all pairs of the table, so neither the order of its rows nor a second pass changes anything.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._parent: dict[str, str] = {}
        names: set[str] = set()
        for tag, canonical in pairs:
            one, other = self._root(normalised(tag)), self._root(normalised(canonical))
            names.add(normalised(canonical))
            self._parent[max(one, other)] = min(one, other)
        self._name: dict[str, str] = {}
        for name in sorted(names):
            self._name.setdefault(self._root(name), name)

    def __call__(self, tag: str) -> str:
        """The canonical name of a tag, itself where the table does not know it. Empty for a tag of nothing but marks."""
        known = normalised(tag)
        return self._name[self._root(known)] if known in self._parent else known

    def _root(self, tag: str) -> str:
        path = []
        while self._parent.setdefault(tag, tag) != tag:
            path.append(tag)
            tag = self._parent[tag]
        for one in path:
            self._parent[one] = tag
        return tag


def read_synonyms(uri: str) -> Synonyms:
    """Synonyms from a CSV or Parquet with the columns `tag` and `canonical`, WordNet synsets written that way among them."""
    table = read_table(uri, ("tag", "canonical"))
    if not {"tag", "canonical"} <= set(table.column_names):
        raise ValueError(
            f"{uri}: its columns are {', '.join(table.column_names)}; a table of synonyms has tag and canonical"
        )
    pairs = list(zip(*(table[name].cast(pa.string()).to_pylist() for name in ("tag", "canonical")), strict=True))
    if joined := ambiguous(pairs):
        first = "; ".join(f"{tag}: {', '.join(names)}" for tag, names in list(joined.items())[:3])
        log_event("synonyms", f"{len(joined)} tags have several canonical names, which become one class each ({first})")
    return Synonyms(pairs)


def ambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Tags with more than one canonical name, and these names: a word of several meanings makes one class of them all."""
    names: dict[str, set[str]] = {}
    for tag, canonical in pairs:
        names.setdefault(normalised(tag), set()).add(normalised(canonical))
    return {tag: sorted(several) for tag, several in names.items() if len(several) > 1}


@dataclass(frozen=True)
class Tagged:
    """The tags of N images: distinct indices into `vocabulary`, `lengths` (N,) of them an image in `flat`."""

    vocabulary: ClassList
    lengths: Ints
    flat: Ints

    @property
    def counts(self) -> Ints:
        """Images of each tag (V,)."""
        return np.bincount(self.flat, minlength=len(self.vocabulary)).astype(np.int64)


def canonicalise(
    column: pa.ChunkedArray,
    synonyms: Synonyms,
    *,
    given: list[str] | None = None,
    min_images: int = 1,
    max_tags: int | None = None,
) -> Tagged:
    """The tags of N images from a column of lists, or of text with tags between spaces, commas or semicolons.

    The vocabulary is what `given` canonicalises to, else the tags of at least `min_images` images, the `max_tags` most frequent of them (then by
    name). All other tags are dropped, and an image names a tag once however often it was written.
    """
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        column = pc.split_pattern_regex(pc.fill_null(column.cast(pa.string()), ""), SEPARATORS)
    lists = column.combine_chunks()
    lengths = np.asarray(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)
    written = pc.fill_null(lists.flatten().cast(pa.string()), "").dictionary_encode()
    names = [synonyms(tag) for tag in written.dictionary.to_pylist()]
    distinct = sorted(set(names))
    index = _positions(names, distinct)
    row, tag = _distinct_pairs(
        np.repeat(np.arange(len(lengths)), lengths), index[np.asarray(written.indices)], len(distinct)
    )
    seen = np.bincount(tag, minlength=len(distinct))
    vocabulary = _vocabulary(dict(zip(distinct, seen.tolist(), strict=True)), synonyms, given, min_images, max_tags)
    new = _positions(distinct, vocabulary.names)
    keep = new[tag] >= 0
    return Tagged(vocabulary, np.bincount(row[keep], minlength=len(lengths)).astype(np.int64), new[tag[keep]])


def replication(counts: Ints, t: float, how: Resample) -> npt.NDArray[np.float64]:
    """How often a tag's images are to be drawn an epoch, (V,): r(h) = max(1, phi(t / f(h))), phi(x) = x for uniform and its root for sqrt."""
    if how == "natural":
        return np.ones(len(counts))
    ratio = t / np.maximum(counts, 1)
    return np.maximum(1.0, ratio if how == "uniform" else np.sqrt(ratio))


def image_factors(tagged: Tagged, t: float, how: Resample) -> npt.NDArray[np.float64]:
    """r(I) of each image (N,): that of its rarest tag; 0 of an image without tags."""
    factors = np.zeros(len(tagged.lengths))
    with_tags = np.flatnonzero(tagged.lengths)
    starts = (np.cumsum(tagged.lengths) - tagged.lengths)[with_tags]
    if len(starts):
        factors[with_tags] = np.maximum.reduceat(replication(tagged.counts, t, how)[tagged.flat], starts)
    return factors


def threshold_for(tagged: Tagged, length: float, how: Resample) -> float:
    """The t at which the expected number of draws an epoch is `length`, to a part in a million; 0 where the images alone are as many."""
    if how == "natural" or image_factors(tagged, 0.0, how).sum() >= length:
        return 0.0
    low, high = 0.0, 1.0
    while image_factors(tagged, high, how).sum() < length:
        low, high = high, 4 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if image_factors(tagged, middle, how).sum() < length else (low, middle)
    return high


def rounded(factors: npt.NDArray[np.float64], coin: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Whole draws (N,) whose expectation is `factors`: the fraction is decided by `coin`, uniform in 0..1."""
    whole = np.floor(factors)
    return (whole + (coin < factors - whole)).astype(np.int32)


def _positions(names: Sequence[str], among: Sequence[str]) -> Ints:
    """The place of each name in `among`, -1 where it is not there."""
    place = {name: index for index, name in enumerate(among)}
    return np.array([place.get(name, -1) for name in names], np.int64)


def _distinct_pairs(row: Ints, tag: Ints, num_tags: int) -> tuple[Ints, Ints]:
    """Each (row, tag) once, in order."""
    pairs = np.unique(row * max(1, num_tags) + tag)
    return pairs // max(1, num_tags), pairs % max(1, num_tags)


def _vocabulary(
    counts: Mapping[str, int], synonyms: Synonyms, given: list[str] | None, min_images: int, max_tags: int | None
) -> ClassList:
    if given is not None:
        names = sorted({synonyms(tag) for tag in given} - {""})
    else:
        often = [name for name, count in counts.items() if name and count >= min_images]
        names = sorted(sorted(often, key=lambda name: (-counts[name], name))[:max_tags])
    if len(names) < 2:
        raise ValueError(
            f"the tags make a vocabulary of {len(names)}: it takes two at least; lower tags.min_images, or check the tags column"
        )
    return ClassList(tuple(names))
