"""Hashtags as labels: synonyms are merged, k tags become k entries of 1/k, rare tags are drawn more often (Mahajan et al. 2018, section 2).

Tags are stored flat: `lengths` (N,) numbers of tags per image, and all tags concatenated.
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


def normalise_tag(tag: str) -> str:
    """The normal form of a tag, equal for #Brown_Bear, brown-bear and "Brown Bear": NFKC, case folded, without #, spaces, hyphens and underscores."""
    folded = unicodedata.normalize("NFKC", tag).casefold()
    return "".join(char for char in folded if char not in "#-_" and not char.isspace())


class Synonyms:
    """Groups of synonymous tags; the name of a group is the first of its canonical names in sorted order.

    Groups are the connected components of the pairs, so the result does not depend on their order.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._parent: dict[str, str] = {}
        names: set[str] = set()
        for tag, canonical in pairs:
            one, other = self._root(normalise_tag(tag)), self._root(normalise_tag(canonical))
            names.add(normalise_tag(canonical))
            self._parent[max(one, other)] = min(one, other)
        self._name: dict[str, str] = {}
        for name in sorted(names):
            self._name.setdefault(self._root(name), name)

    def __call__(self, tag: str) -> str:
        """The canonical name of a tag, or its normal form if it has no synonyms. Empty for a tag without letters or digits."""
        known = normalise_tag(tag)
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
    """Synonyms from a CSV or Parquet file with the columns `tag` and `canonical`. Raises ValueError without these columns."""
    table = read_table(uri, ("tag", "canonical"))
    if not {"tag", "canonical"} <= set(table.column_names):
        raise ValueError(f"{uri}: columns {', '.join(table.column_names)}; the columns tag and canonical are required")
    pairs = list(zip(*(table[name].cast(pa.string()).to_pylist() for name in ("tag", "canonical")), strict=True))
    if joined := find_ambiguous(pairs):
        first = "; ".join(f"{tag}: {', '.join(names)}" for tag, names in list(joined.items())[:3])
        log_event(
            "synonyms",
            f"{len(joined)} tags have several canonical names, which are merged into one class each ({first})",
        )
    return Synonyms(pairs)


def find_ambiguous(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Tags with more than one canonical name, and these names: all meanings of such a tag are merged into one class."""
    names: dict[str, set[str]] = {}
    for tag, canonical in pairs:
        names.setdefault(normalise_tag(tag), set()).add(normalise_tag(canonical))
    return {tag: sorted(several) for tag, several in names.items() if len(several) > 1}


@dataclass(frozen=True)
class TaggedImages:
    """The tags of N images: `flat` distinct indices into `vocabulary` per image, concatenated, `lengths` (N,) of them per image."""

    vocabulary: ClassList
    lengths: Ints
    flat: Ints

    @property
    def counts(self) -> Ints:
        """Number of images per tag (V,)."""
        return np.bincount(self.flat, minlength=len(self.vocabulary)).astype(np.int64)


def canonicalise(
    column: pa.ChunkedArray,
    synonyms: Synonyms,
    *,
    given: list[str] | None = None,
    min_images: int = 1,
    max_tags: int | None = None,
) -> TaggedImages:
    """The tags of N images from a column of lists, or of text with tags separated by spaces, commas or semicolons.

    The vocabulary is the canonical names of `given`, else the `max_tags` most frequent tags (ties by name) of those with at least `min_images`
    images. All other tags are dropped; repeated tags of an image count once.
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
    return TaggedImages(vocabulary, np.bincount(row[keep], minlength=len(lengths)).astype(np.int64), new[tag[keep]])


def replication(counts: Ints, t: float, how: Resample) -> npt.NDArray[np.float64]:
    """Draws per epoch of the images of each tag, (V,): r(h) = max(1, phi(t / f(h))), phi(x) = x for uniform and its square root for sqrt."""
    if how == "natural":
        return np.ones(len(counts))
    ratio = t / np.maximum(counts, 1)
    return np.maximum(1.0, ratio if how == "uniform" else np.sqrt(ratio))


def image_factors(tagged: TaggedImages, t: float, how: Resample) -> npt.NDArray[np.float64]:
    """r(I) of each image (N,): that of its rarest tag; 0 for an image without tags."""
    factors = np.zeros(len(tagged.lengths))
    with_tags = np.flatnonzero(tagged.lengths)
    starts = (np.cumsum(tagged.lengths) - tagged.lengths)[with_tags]
    if len(starts):
        factors[with_tags] = np.maximum.reduceat(replication(tagged.counts, t, how)[tagged.flat], starts)
    return factors


def threshold_for(tagged: TaggedImages, length: float, how: Resample) -> float:
    """The t at which the expected number of draws per epoch is `length`, to a relative 1e-6; 0 if one draw per image already suffices."""
    if how == "natural" or image_factors(tagged, 0.0, how).sum() >= length:
        return 0.0
    low, high = 0.0, 1.0
    while image_factors(tagged, high, how).sum() < length:
        low, high = high, 4 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if image_factors(tagged, middle, how).sum() < length else (low, middle)
    return high


def round_randomly(factors: npt.NDArray[np.float64], coin: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Integer draws int32 (N,) with expectation `factors`: round_randomly up where `coin`, uniform in 0..1, is below the fraction."""
    floor = np.floor(factors)
    return (floor + (coin < factors - floor)).astype(np.int32)


def _positions(names: Sequence[str], among: Sequence[str]) -> Ints:
    """The position of each name in `among`, -1 if it is missing."""
    position = {name: index for index, name in enumerate(among)}
    return np.array([position.get(name, -1) for name in names], np.int64)


def _distinct_pairs(row: Ints, tag: Ints, num_tags: int) -> tuple[Ints, Ints]:
    """The distinct pairs (row, tag), sorted."""
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
            f"the tags give a vocabulary of {len(names)}, at least 2 are required. Lower tags.min_images, or check the column of tags."
        )
    return ClassList(tuple(names))
