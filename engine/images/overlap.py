"""Images that are in two sets, found by content and by key before anything is trained.

Each set is read once (`read_content_hashes`). Labelled sets must not overlap (`check_overlaps`); a pool may overlap with them, and
its workers exclude those images (`build_exclusion_set`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np

from engine.ground.encodings import composed
from engine.images.decode import content_hash
from engine.images.file_listing import Progress
from engine.images.manifest import Manifest

SHOWN = 10
"""Most images of a pair of sets that are listed in a message."""


@dataclass(frozen=True)
class ContentHashes:
    """Keys of a set and the 16-byte content hashes of its images. `has_keys`: keys identify an image in any collection."""

    keys: list[str] = field(repr=False)
    hashes: list[bytes] = field(repr=False)
    has_keys: bool


def read_content_hashes(
    manifest: Manifest, shards: Sequence[int] | None = None, progress: Progress | None = None
) -> ContentHashes:
    """The content hashes of a set, or of some shards of it. Images that cannot be read are skipped."""
    keys: list[str] = []
    hashes: list[bytes] = []
    for shard in range(manifest.num_shards) if shards is None else shards:
        for batch in manifest.read(shard):
            for key, image in zip(batch["key"].to_pylist(), batch["image"], strict=True):
                if image.is_valid:
                    keys.append(key)
                    hashes.append(content_hash(image.as_buffer()))
        if progress:
            progress(len(keys))
    return ContentHashes(keys, hashes, manifest.has_keys)


def check_overlaps(sets: Mapping[str, ContentHashes]) -> None:
    """Raise ValueError, listing up to SHOWN images per pair, when two sets share an image by content or by key."""
    pairs = combinations(sets.items(), 2)
    if problems := [problem for one, other in pairs if (problem := _shared(*one, *other))]:
        remedy = "Remove them from one of the two: results on images that were trained on are meaningless."
        raise ValueError("\n".join([*problems, remedy]))


def contradictions(hashes: ContentHashes, labels: Mapping[str, str | None]) -> str:
    """A sentence on pictures that a set holds under several labels (by key); empty without any."""
    first: dict[bytes, str] = {}
    pairs: dict[bytes, str] = {}
    for content, key in zip(hashes.hashes, hashes.keys, strict=True):
        other = first.setdefault(content, key)
        if labels.get(key) != labels.get(other):
            pairs.setdefault(content, f"{other} ({labels.get(other)}) = {key} ({labels.get(key)})")
    if not pairs:
        return ""
    shown = ", ".join(list(pairs.values())[:3])
    return f"{len(pairs)} picture{'s' * (len(pairs) > 1)} with several labels: {shown}. Remove the wrong ones."


def _shared(one: str, first: ContentHashes, other: str, second: ContentHashes) -> str:
    """A sentence that lists the images in both sets; empty without any."""
    by_hash = dict(zip(first.hashes, first.keys, strict=True))
    pairs = {(by_hash[h], key): "" for h, key in zip(second.hashes, second.keys, strict=True) if h in by_hash}
    if first.has_keys and second.has_keys:
        known = {composed(key): key for key in first.keys if _names(key)}
        twins = [(known[composed(key)], key) for key in second.keys if composed(key) in known]
        pairs |= {twin: " (same key, other bytes)" for twin in twins if twin not in pairs}
    if not pairs:
        return ""
    shown = ", ".join(f"{a if a == b else f'{a} = {b}'}{why}" for (a, b), why in list(pairs.items())[:SHOWN])
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return f"{one} and {other} share {len(pairs)} image{'s' if len(pairs) > 1 else ''}: {shown}{more}."


def _names(key: str) -> bool:
    """Whether a key of a key column can identify an image: plain numbers are more often row numbers than names."""
    return not key.isdecimal()


class ExclusionSet:
    """Images to exclude from a pool: 17 bytes per image and key, in arrays that the workers of a node share."""

    def __init__(self, names: list[str], contents: "_Lookup", keys: "_Lookup") -> None:
        self.names, self.contents, self.keys = names, contents, keys

    def reason(self, key: str | None, content: bytes) -> str | None:
        """The reason to exclude an image of the pool (`excluded: also in test`), or None.

        `key`: None unless the pool's keys come from a key column; `content`: its `content_hash`.
        """
        owner = self.contents.owner(content)
        if owner is None and key is not None and _names(key):
            owner = self.keys.owner(_key_hash(key))
        return None if owner is None else f"excluded: also in {self.names[owner]}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of the names and hashes, for the fingerprint of a step that depends on them."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for lookup in (self.contents, self.keys):
            for part in (lookup.high, lookup.low, lookup.owners):
                digest.update(f"{len(part)}:".encode() + part.tobytes())
        return digest.hexdigest()


def build_exclusion_set(sets: Mapping[str, ContentHashes]) -> ExclusionSet:
    """The exclusion set of all sets; an image in several of them is attributed to the first."""
    hashes = list(sets.values())
    contents = [(content, owner) for owner, one in enumerate(hashes) for content in one.hashes]
    named = [(key, owner) for owner, one in enumerate(hashes) if one.has_keys for key in one.keys if _names(key)]
    return ExclusionSet(list(sets), _Lookup(contents), _Lookup([(_key_hash(key), owner) for key, owner in named]))


def _key_hash(key: str) -> bytes:
    return content_hash(composed(key).encode())


class _Lookup:
    """16-byte hashes as two sorted halves, and the index of the set of each."""

    def __init__(self, entries: list[tuple[bytes, int]]) -> None:
        halves = np.frombuffer(b"".join(digest for digest, _ in entries), ">u8").reshape(-1, 2).astype(np.uint64)
        owners = np.array([owner for _, owner in entries], np.uint8)
        order = np.lexsort((owners, halves[:, 1], halves[:, 0]))
        self.high, self.low, self.owners = halves[order, 0], halves[order, 1], owners[order]

    def owner(self, digest: bytes) -> int | None:
        high, low = np.frombuffer(digest, ">u8").astype(np.uint64)
        at = int(np.searchsorted(self.high, high))
        while at < len(self.high) and self.high[at] == high:
            if self.low[at] == low:
                return int(self.owners[at])
            at += 1
        return None
