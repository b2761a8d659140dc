"""The images that the steps of a run rejected or excluded: keys and reasons, from the quarantine of each step."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow.parquet as pq

from engine.ground import storage
from engine.ground.budget import count_reasons
from engine.ground.run import pointers
from engine.ground.steps import Store


class RejectedImage(NamedTuple):
    """One image of a quarantine, with the title of the step that rejected it. `shard`, `row`: its address."""

    title: str
    shard: int
    row: int
    key: str
    reason: str


def rejected_images(store: Store, run: str) -> Iterator[RejectedImage]:
    """All of them, by step and address. Raises FileNotFoundError for a run that there is not."""
    for pointer in pointers(store, run):
        folder = f"{store.root}/steps/{pointer.step}/quarantine"
        for name in sorted(storage.names(store.fs, folder)):
            for row in pq.read_table(f"{folder}/{name}", filesystem=store.fs, use_threads=False).to_pylist():
                yield RejectedImage(pointer.title, row["shard"], row["row"], row["key"], row["reason"])


def count_rejected(images: list[RejectedImage]) -> dict[str, dict[str, int]]:
    """Number of images per reason, by title, the most frequent first."""
    titles = dict.fromkeys(image.title for image in images)
    counts = {title: count_reasons(image.reason for image in images if image.title == title) for title in titles}
    return {title: dict(Counter(found).most_common()) for title, found in counts.items()}
