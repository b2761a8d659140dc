"""Arrow schemas of every table that passes between verbs.

A table's schema is pinned: columns, types and order are checked when a part is written and again when it is read. The class index type follows
the number of classes and the class manifest's hash travels in the schema's metadata, so that tables of different class lists never meet silently.

An image is addressed by (`shard`, `row`): integers that the manifest of its collection resolves to a key and to bytes.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = 1
"""Raised when a table's columns change; a store written by another version is refused, never guessed at."""

CLASSES_HASH = b"classes_hash"
NUM_CLASSES = b"num_classes"
TOP_P = b"top_p"

FURTHER = ("energy", "entropy")
"""Scores that predictions may hold beside the log-odds, float16: the log-sum-exp of the logits, and the log-odds of 1 - H / log C."""

SHARDS = pa.schema(
    [
        ("shard", pa.int32()),
        ("path", pa.string()),  # relative to the collection's root; empty for a shard of loose files
        ("start", pa.int64()),  # first row inside the file
        ("rows", pa.int32()),
        ("bytes", pa.int64()),
    ]
)
"""The manifest of a collection: a row is a shard, one unit of work."""

FILES = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("key", pa.string()),
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("label", pa.string()),
    ]
)
"""The manifest of loose files: a row is an image; one row group a shard."""

IMAGES = pa.schema([("row", pa.int32()), ("key", pa.string()), ("image", pa.binary()), ("label", pa.string())])
"""What reading a shard yields: encoded images in address order; `label` is the class *name*, null where unknown."""

QUARANTINE = pa.schema([("shard", pa.int32()), ("row", pa.int32()), ("key", pa.string()), ("reason", pa.string())])
"""One image that could not be used, or was kept out (`excluded: …`), and why."""

MAX_CLASSES_U16 = 65_536


def class_type(num_classes: int) -> pa.DataType:
    """Narrowest class index type: uint16 up to 65,536 classes, else uint32."""
    return pa.uint16() if num_classes <= MAX_CLASSES_U16 else pa.uint32()


def class_dtype(num_classes: int) -> np.dtype:
    """numpy's twin of `class_type`."""
    return np.dtype("<u2") if num_classes <= MAX_CLASSES_U16 else np.dtype("<u4")


def _metadata(num_classes: int, classes_hash: str, **more: int) -> dict[bytes, bytes]:
    extra = {key.encode(): str(value).encode() for key, value in more.items()}
    return {NUM_CLASSES: str(num_classes).encode(), CLASSES_HASH: classes_hash.encode(), **extra}


def log_sum_exp(temperature: float) -> str:
    """The further column of predictions that holds log sum p^(1/temperature) over all classes, float16: `log_sum_exp_0.5`."""
    return f"log_sum_exp_{temperature:g}"


def predictions(num_classes: int, classes_hash: str, top_p: int, further: Sequence[str] = ()) -> pa.Schema:
    """One image as the teacher sees it: its top-P classes and their float16 log-odds, best first, as fixed-width little-endian bytes.

    Fixed-width binary with byte-stream-split writes three times faster than nested lists at the same size. Log-odds log p - log(1-p) keep their
    order in float16 where rounded probabilities would all read 1.0. `further`: columns that were asked for, see `FURTHER` and `log_sum_exp`.
    """
    width = class_dtype(num_classes).itemsize
    return pa.schema(
        [
            ("shard", pa.int32()),
            ("row", pa.int32()),
            ("classes", pa.binary(width * top_p)),
            ("scores", pa.binary(2 * top_p)),
            *((name, pa.float16()) for name in further),
        ],
        metadata=_metadata(num_classes, classes_hash, top_p=top_p),
    )


def pseudo_labels(num_classes: int, classes_hash: str) -> pa.Schema:
    """One image chosen for one class: `score` is its float16 log-odds for that class, `rank` 0 the best of the class, `count` how often it is
    drawn in an epoch (duplication is a number, never copies); `classes`/`weights` the target to learn, sparse (see `labels`)."""
    index = class_type(num_classes)
    return pa.schema(
        [
            ("shard", pa.int32()),
            ("row", pa.int32()),
            ("class", index),
            ("score", pa.float16()),
            ("rank", pa.int32()),
            ("count", pa.int32()),
            ("classes", pa.list_(index)),
            ("weights", pa.list_(pa.float32())),
        ],
        metadata=_metadata(num_classes, classes_hash),
    )


def targets(num_classes: int, classes_hash: str) -> pa.Schema:
    """One image and what it is to be learned as, where no selection made it: the columns of `pseudo_labels` that `gather` reads."""
    index = class_type(num_classes)
    return pa.schema(
        [
            ("shard", pa.int32()),
            ("row", pa.int32()),
            ("count", pa.int32()),
            ("classes", pa.list_(index)),
            ("weights", pa.list_(pa.float32())),
        ],
        metadata=_metadata(num_classes, classes_hash),
    )


def training(num_classes: int, classes_hash: str, mask: bool = False) -> pa.Schema:
    """One image to learn from. `classes`/`weights` is the one sparse target form: hard labels have one entry of 1, tags k entries of 1/k, soft
    labels the top P; mass missing from 1 is spread evenly over the classes not listed. `mask`: an optional encoded target image."""
    index = class_type(num_classes)
    columns = [
        ("key", pa.string()),
        ("image", pa.binary()),
        ("classes", pa.list_(index)),
        ("weights", pa.list_(pa.float32())),
        ("count", pa.int32()),
    ]
    if mask:
        columns.append(("mask", pa.binary()))
    return pa.schema(columns, metadata=_metadata(num_classes, classes_hash))


def check(table: pa.Table | pa.RecordBatch, expected: pa.Schema, where: str) -> None:
    """Raise ValueError unless `table` has exactly the expected columns, types and class manifest; `where` names the file in the message."""
    if not table.schema.equals(expected, check_metadata=False):
        raise ValueError(
            f"{where}: columns are {table.schema.names} of {table.schema.types}, expected {expected.names} of {expected.types}"
        )
    found, wanted = (s.metadata or {} for s in (table.schema, expected))
    for name in (CLASSES_HASH, NUM_CLASSES, TOP_P):
        if name in wanted and found.get(name) != wanted[name]:
            shown = (found.get(name) or b"nothing").decode()
            raise ValueError(
                f"{where}: its {name.decode()} is {shown}, expected {wanted[name].decode()}: it was made for another class list or setting"
            )


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """`table` with another column in the place of the one called `name`, its field (name, type) unchanged."""
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)
