"""Arrow schemas of the tables that are exchanged between verbs.

Schemas are pinned: columns, types and order are checked when a part is written and when it is read. The type of class indices depends on the number
of classes, and the metadata of the schema holds the hash of the class list, so that tables of different class lists are never mixed silently.

An image is addressed by (`shard`, `row`): integers that the manifest of its collection resolves to a key and to bytes.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = 1
"""Incremented when the columns of a table change; a store of another version is rejected."""

CLASSES_HASH = b"classes_hash"
NUM_CLASSES = b"num_classes"
TOP_P = b"top_p"
FEATURE_DIM = b"feature_dim"

EXTRA_SCORES = ("energy", "entropy")
"""Extra scores of predictions, float16: the log-sum-exp of the logits, and the log-odds of 1 - H / log C."""

SHARDS = pa.schema(
    [
        ("shard", pa.int32()),
        ("path", pa.string()),  # relative to the collection's root; empty for a shard of loose files
        ("start", pa.int64()),  # first row inside the file
        ("rows", pa.int32()),
        ("bytes", pa.int64()),
    ]
)
"""The shards of a collection, one row per shard (the unit of work)."""

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
"""The loose files of a collection, one row per image and one row group per shard."""

IMAGES = pa.schema([("row", pa.int32()), ("key", pa.string()), ("image", pa.binary()), ("label", pa.string())])
"""Encoded images of a shard in address order; `label` is the class *name*, null if unknown."""

QUARANTINE = pa.schema([("shard", pa.int32()), ("row", pa.int32()), ("key", pa.string()), ("reason", pa.string())])
"""One row per image that was rejected or excluded (`excluded: …`), with the reason."""

MAX_CLASSES_U16 = 65_536

IGNORE = 255
"""Mask value of pixels without a target: nothing is learned of them, and no score counts them."""


def class_type(num_classes: int) -> pa.DataType:
    """Narrowest type of class indices: uint16 up to 65,536 classes, else uint32."""
    return pa.uint16() if num_classes <= MAX_CLASSES_U16 else pa.uint32()


def class_dtype(num_classes: int) -> np.dtype:
    """The numpy equivalent of `class_type`."""
    return np.dtype("<u2") if num_classes <= MAX_CLASSES_U16 else np.dtype("<u4")


def _metadata(num_classes: int, classes_hash: str, **more: int) -> dict[bytes, bytes]:
    extra = {key.encode(): str(value).encode() for key, value in more.items()}
    return {NUM_CLASSES: str(num_classes).encode(), CLASSES_HASH: classes_hash.encode(), **extra}


def log_sum_exp(temperature: float) -> str:
    """Name of the extra score log sum p^(1/temperature) over all classes: `log_sum_exp_0.5`."""
    return f"log_sum_exp_{temperature:g}"


def predictions(num_classes: int, classes_hash: str, top_p: int, extra: Sequence[str] = ()) -> pa.Schema:
    """Predictions, one row per image: its top-P classes and their float16 log-odds, best first, as fixed-width little-endian bytes.

    Fixed-width binary with byte-stream-split writes three times faster than nested lists at the same size. Log-odds log p - log(1-p) keep their
    order in float16 where probabilities would round to 1.0. `extra`: names of the extra scores, see `EXTRA_SCORES` and `log_sum_exp`.
    """
    width = class_dtype(num_classes).itemsize
    return pa.schema(
        [
            ("shard", pa.int32()),
            ("row", pa.int32()),
            ("classes", pa.binary(width * top_p)),
            ("scores", pa.binary(2 * top_p)),
            *((name, pa.float16()) for name in extra),
        ],
        metadata=_metadata(num_classes, classes_hash, top_p=top_p),
    )


def features(dim: int) -> pa.Schema:
    """Features of a frozen network, one row per image: float16 as fixed-width little-endian bytes, and the 16-byte content hash of the encoded image,
    by which an image that is also in another set is found without its pixels."""
    return pa.schema(
        [
            ("shard", pa.int32()),
            ("row", pa.int32()),
            ("content", pa.binary(16)),
            ("features", pa.binary(2 * dim)),
        ],
        metadata={FEATURE_DIM: str(dim).encode()},
    )


def pseudo_labels(num_classes: int, classes_hash: str) -> pa.Schema:
    """Pseudo-labels, one row per selected image and class: `score` is its float16 log-odds for that class, `rank` 0 the best of the class, `count`
    the number of draws per epoch; `classes`/`weights` the sparse target (see `training`)."""
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
    """Targets that no selection made, one row per image: the columns of `pseudo_labels` that `gather` reads."""
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
    """Training images, one per row, with their address in the collection. `classes`/`weights` are the sparse target: one entry of 1 for a hard
    label, k entries of 1/k for tags, the top P for a soft label; the residual mass is spread evenly over the classes that are not listed. `mask`:
    with an encoded target image."""
    index = class_type(num_classes)
    columns = [
        ("shard", pa.int32()),
        ("row", pa.int32()),
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
    """Raise ValueError, starting with `where`, unless `table` has exactly the expected columns, types and class list."""
    if not table.schema.equals(expected, check_metadata=False):
        raise ValueError(
            f"{where}: columns are {table.schema.names} of {table.schema.types}, expected {expected.names} of {expected.types}"
        )
    found, wanted = (s.metadata or {} for s in (table.schema, expected))
    for name in (CLASSES_HASH, NUM_CLASSES, TOP_P):
        if name in wanted and found.get(name) != wanted[name]:
            shown = (found.get(name) or b"nothing").decode()
            raise ValueError(
                f"{where}: {name.decode()} is {shown}, expected {wanted[name].decode()}. It was written for another class list or setting."
            )


def with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """`table` with the column `name` replaced; name and type of its field are kept."""
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)
