"""A named set of images: its manifest, which is listed once and stored, and the digest of its contents."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from engine.ground import storage
from engine.ground.progress import CountProgress, log_event
from engine.ground.record import StepRecord, fingerprint
from engine.ground.run import Run
from engine.images.file_listing import without_credentials
from engine.images.formats import explain_ignored
from engine.images.manifest import Manifest
from engine.images.masks import Masks, MaskSet
from engine.images.sources import list_images
from engine.labels.classes import ClassList
from engine.settings.data import SourceSettings

REVISION = 1
CLASSES_SHOWN = 20
LIST_AGAIN = 100_000
"""Number of loose files up to which a collection is listed at each start, so that new files are found; larger ones are listed once."""


@dataclass(frozen=True)
class Collection:
    """Images with a name ("pool", "validation")."""

    name: str
    manifest: Manifest
    masks: Masks | None = None
    """What task=segment learns of the images."""

    @property
    def digest(self) -> str:
        return self.manifest.digest if self.masks is None else f"{self.manifest.digest}-{self.masks.digest}"

    @cached_property
    def label_names(self) -> list[str]:
        """Sorted names of the labels in the collection."""
        return list(self.manifest.label_counts)

    @property
    def has_labels(self) -> bool:
        """Whether any image has a label; labels of a pool are used only in reports."""
        return bool(self.label_names) or self.masks is not None

    @property
    def labels_by_key(self) -> dict[str, str | None]:
        """The label of every image by its key."""
        keys, labels = self.manifest.keys()["key"], self.manifest.labels()["label"]
        return dict(zip(keys.to_pylist(), labels.to_pylist(), strict=True))

    def positions(self, shard: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Positions int64 (n,) in address order of the images at (shard, row)."""
        first = np.concatenate([[0], np.cumsum(self.manifest.rows, dtype=np.int64)])
        return first[shard] + row

    def at(self, table: pa.Table) -> np.ndarray:
        """`positions` of a table's columns `shard` and `row`."""
        return self.positions(table["shard"].to_numpy(), table["row"].to_numpy())

    def class_indices(self, classes: ClassList, shards: Sequence[int] | None = None) -> np.ndarray:
        """Class indices int64 (N,) of all images, or of those in `shards`, in address order. Raises ValueError for an image without a label or
        with an unknown one."""
        index = classes.indices(self.manifest.labels(shards)["label"], self.name)
        if unlabelled := int((index < 0).sum()):
            raise ValueError(
                f"{self.name}: {unlabelled} of {index.size} images have no label. Set data.label_column, or use class folders."
            )
        return index


def open_collection(run: Run, name: str, uri: str, source: SourceSettings, labelled: bool = False) -> Collection:
    """The collection at `uri`: listed, or read from the store if it is large and was listed before.

    `labelled`: whether every image must have a label and every class folder an image. Raises ValueError otherwise.
    """
    uri = storage.absolute(uri)
    wanted = source.model_dump(include={"image_column", "key_column", "label_column", "rows_per_shard", "shard_bytes"})
    wanted |= source.model_dump(include={"extensions", "encoding"}, exclude_none=True)
    listing_path = f"{run.store.root}/listings/{fingerprint({'uri': uri, **wanted})}.json"
    fs = run.store.fs
    if storage.exists(fs, listing_path):
        stored = json.loads(storage.get(fs, listing_path))
        if stored["files"] > LIST_AGAIN:
            log_event(
                name,
                f"{stored['files']:,} files listed on {stored['listed']}. Delete {listing_path} to list them again.",
            )
            manifest = Manifest.load(fs, stored["folder"], uri)
            log_classes(name, manifest)
            return Collection(name, manifest)
    listing = list_images(uri, source, labelled=labelled, progress=CountProgress(name, "images listed"))
    step = run.store.step(StepRecord("list", REVISION, wanted, {"listing": listing.digest}))
    if not storage.exists(fs, f"{step.folder}/manifest.json"):
        Manifest.save(listing, fs, step.folder)
    files = listing.files.num_rows if listing.files is not None else 0
    storage.put(
        fs,
        listing_path,
        json.dumps({"folder": step.folder, "files": files, "listed": time.strftime("%Y-%m-%d %H:%M")}).encode(),
    )
    manifest = Manifest.load(fs, step.folder, uri)
    log_event(name, f"{manifest.num_rows:,} images, {manifest.num_shards} shards, {without_credentials(uri)}")
    if listing.ignored:
        log_event(name, explain_ignored(listing.ignored))
    for note in listing.notes:
        log_event(name, note)
    log_classes(name, manifest)
    return Collection(name, manifest)


def open_masks(run: Run, collection: Collection, uri: str, source: SourceSettings) -> Collection:
    """`collection` with the masks at `uri`, listed like images."""
    masks = open_collection(run, f"{collection.name} masks", uri, source).manifest
    return replace(collection, masks=MaskSet(collection.manifest, masks))


def log_classes(name: str, manifest: Manifest) -> None:
    """Say what the classes of a collection with labels are, before anything is computed of them."""
    if manifest.label_counts:
        log_event(name, shown_classes(manifest.label_counts, manifest.num_rows))


def shown_classes(counts: dict[str, int], images: int) -> str:
    """`2 classes: cat 15, dog 8`, the smallest and largest of many."""
    if len(counts) <= CLASSES_SHOWN:
        named = ", ".join(f"{label} {count:,}" for label, count in counts.items())
    else:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        named = f"{counts[least]:,} ({least}) to {counts[most]:,} ({most}) images each"
    without = images - sum(counts.values())
    return f"{len(counts)} classes: {named}" + (f"; {without:,} images without a label" if without else "")
