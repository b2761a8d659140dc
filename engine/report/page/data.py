"""The data of a run: its collections as they were listed, the images of each class, and what was ignored or excluded."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.images.collection import Collection
from engine.images.file_listing import without_credentials
from engine.images.formats import UNREADABLE
from engine.report.page.source import SPLITS, RunRecord


@dataclass(frozen=True)
class SplitRow:
    """A collection of the run. `labelled`: images that have a label; those of a pool are read for reports only."""

    name: str
    place: str
    kind: str
    images: int
    shards: int
    labelled: int
    classes: int
    ignored: tuple[tuple[str, int, str], ...]
    """Ending, number of files, what to do about it."""


@dataclass(frozen=True)
class ClassImages:
    """Images of a class in each split, in the order of the splits."""

    name: str
    images: tuple[int, ...]


@dataclass(frozen=True)
class Data:
    """All of the section; classes are sorted, the fewest training images first."""

    splits: tuple[SplitRow, ...]
    classes: tuple[ClassImages, ...]
    class_splits: tuple[str, ...]
    missing: tuple[str, ...]
    """Splits that the settings name and whose listing is not in the store."""


def data(record: RunRecord) -> Data:
    """The section of a run."""
    found = {split: record.collection(split) for split in SPLITS}
    named = record.settings.get("data") or {}
    collections = [one for one in found.values() if one is not None]
    labelled = [one for one in collections if one.name != "pool"]
    return Data(
        tuple(_row(one) for one in collections),
        class_images(labelled),
        tuple(one.name for one in labelled),
        tuple(split for split in SPLITS if named.get(split) and found[split] is None),
    )


def class_images(labelled: Sequence[Collection]) -> tuple[ClassImages, ...]:
    """A row for each label of the collections, the rarest of the first collection first."""
    counts = [one.manifest.label_counts for one in labelled]
    names = dict.fromkeys(name for one in counts for name in one)
    rows = [ClassImages(name, tuple(one.get(name, 0) for one in counts)) for name in names]
    return tuple(sorted(rows, key=lambda row: (row.images, row.name)))


def _row(collection: Collection) -> SplitRow:
    manifest = collection.manifest
    return SplitRow(
        collection.name,
        without_credentials(manifest.uri),
        manifest.kind,
        manifest.num_rows,
        manifest.num_shards,
        sum(manifest.label_counts.values()),
        len(manifest.label_counts),
        tuple((ending, count, UNREADABLE.get(ending, "")) for ending, count in manifest.ignored.items()),
    )
