"""Whether a selection belongs to the images and the classes that it is gathered for: addresses and indices mean nothing of others."""

import pyarrow.parquet as pq

from engine.ground.steps import Output, Store, read_output
from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.labels.classes import ClassList
from engine.models.fetch import teacher_classes
from engine.tables.schema import CLASSES_HASH

SHOWN = 3


def check_same_images(store: Store, pseudo: Output, collection: Collection) -> None:
    """Raise ValueError, with the difference, when a selection is of another collection, or of this one as it was before."""
    predictions = pseudo.summary.get("predictions")
    if predictions is None:  # targets of a table, which were matched by key
        return
    predicted = store.step_json(predictions, "record.json")["inputs"]["images"]
    if predicted.partition("-")[0] == collection.manifest.digest:
        return
    there = store.step_json(predictions, "plan.json")
    before = Manifest.load(store.fs, f"{store.root}/steps/{there['manifest']}")
    differs = difference(before, collection.manifest)
    raise ValueError(
        f"{pseudo.step}: its images are those of {there['collection']}, and {collection.name} is not the same: {differs}."
        f" Select from predictions of {collection.name} as it is now, or name the collection that was predicted."
    )


def difference(before: Manifest, now: Manifest) -> str:
    """How two listings differ, in a sentence."""
    same = before.num_rows == now.num_rows
    counts = (
        f"{now.num_rows:,} images then and now" if same else f"{before.num_rows:,} images then, {now.num_rows:,} now"
    )
    keys = [set(one.keys()["key"].to_pylist()) for one in (before, now)]
    changes = [
        f"{len(names):,} {what} ({', '.join(sorted(names)[:SHOWN])}{', …' if len(names) > SHOWN else ''})"
        for what, names in (("gone", keys[0] - keys[1]), ("new", keys[1] - keys[0]))
        if names
    ]
    return "; ".join([counts, *changes]) if changes else f"{counts}, the same keys, but other contents or another order"


def check_same_classes(store: Store, pseudo: Output, classes: ClassList) -> None:
    """Raise ValueError, with the difference, when the class indices of a selection or of targets are those of another class list."""
    parts = pseudo.parts(store.fs)
    if not parts:
        return
    with store.fs.open_input_file(f"{pseudo.folder}/parts/{parts[0].name}") as file:
        found = (pq.read_schema(file).metadata or {}).get(CLASSES_HASH, b"").decode()
    if found == classes.hash:
        return
    predictions = read_output(store, pseudo.summary["predictions"]) if "predictions" in pseudo.summary else None
    if predictions is not None:
        classes.check_same(teacher_classes(store, predictions), pseudo.step)
    raise ValueError(
        f"{pseudo.step}: its class indices are those of another class list than {', '.join(classes.names[:10])}; make it again"
    )
