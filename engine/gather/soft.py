"""Soft labels from another tool as a step of targets, ready to be gathered."""

import hashlib
import time

import numpy as np
import pyarrow as pa

from engine.ground import storage
from engine.ground.progress import log_event
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step
from engine.images.collection import Collection
from engine.labels.classes import ClassList
from engine.labels.soft_tables import SoftLabels, read_soft, slices
from engine.settings.jobs import SoftSettings
from engine.tables import schema

REVISION = 1
PART_ROWS = 1_000_000
CHUNK = 16 * 2**20


def import_soft(run: Run, label: str, soft: SoftSettings, collection: Collection, classes: ClassList) -> Output:
    """Targets (schema.targets) of the images that the table names; images that it does not name have none."""
    inputs = {"table": file_digest(soft.table), "images": collection.digest, "classes": classes.hash}

    def work(step: Step) -> Output:
        started = time.time()
        labels = read_labels(soft, collection, classes)
        addresses = collection.manifest.labels()
        parts = []
        for unit, piece in enumerate(slices(labels, PART_ROWS)):
            place = pa.array(piece.position)
            count = pa.array(np.ones(len(piece.position), np.int32))
            columns = [
                *(addresses[name].take(place).combine_chunks() for name in ("shard", "row")),
                count,
                *piece.targets,
            ]
            table = pa.Table.from_arrays(columns, schema=schema.targets(len(classes), classes.hash))
            parts.append(step.put_part(unit, table))
        log_event(label, f"{len(labels.position)} of {collection.manifest.num_rows} images have soft labels")
        return step.commit(parts, {"kind": soft.kind, "images": len(labels.position)}, started)

    return run.find_or_run_step(label, StepRecord("import_labels", REVISION, soft, inputs), work)


def read_labels(soft: SoftSettings, collection: Collection, classes: ClassList) -> SoftLabels:
    """The table's labels for the images of `collection`."""
    return read_soft(soft.table, soft.kind, classes, collection.manifest.keys()["key"], soft.top)


def file_digest(uri: str) -> str:
    """SHA-256 in hex of a table's file, and of those that stand beside an array."""
    fs, path = storage.resolve(uri)
    stem = path.removesuffix(".npy")
    beside = [f"{stem}.classes.json", f"{stem}.keys.csv"] if path.endswith(".npy") else []
    digest = hashlib.sha256()
    for one in [path, *beside]:
        if one != path and not storage.exists(fs, one):
            continue
        try:
            with fs.open_input_stream(one) as stream:
                while data := stream.read(CHUNK):
                    digest.update(data)
        except FileNotFoundError:
            raise ValueError(f"{uri}: no such file; soft.table names a table of soft labels") from None
    return digest.hexdigest()
