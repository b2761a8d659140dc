"""Tables of soft labels from other tools: a number per image and class, as n x k arrays, as one column per class, or sparse.

- `X.npy`: n x k. `X.classes.json` lists the class names of the columns; `X.keys.csv` (a column `key`) lists the images, without it the rows are all
  images in address order.
- Parquet, Arrow: `key` and a list column `values` of k numbers; the metadata `class_names` of the schema lists the classes as JSON.
- CSV, Parquet, Arrow: `key` and one column per class, named like the class, in any order.
- Parquet, Arrow, sparse: `key`, `classes` (names) and `weights`; the residual mass is spread over the classes that are not listed.

Columns are matched to classes by name: a table of other classes is an error, and columns in another order are reordered.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.ground import storage
from engine.labels import targets
from engine.labels.by_key import find_positions, read_table
from engine.labels.classes import ClassList
from engine.labels.targets import Targets

TargetKind = Literal["distribution", "logits", "labels"]
"""Meaning of the numbers of an image: probabilities that sum to 1, logits, or independent probabilities of several labels."""

CLASS_NAMES = b"class_names"
SUM_SLACK = 5e-3
"""Largest deviation from 1 of the sum of the probabilities of an image: float16 rounds, and they are renormalised."""
DENSE_ROWS = 65_536


@dataclass(frozen=True)
class SoftLabels:
    """Targets of n images, and the position int64 (n,) of each among the images of the collection in address order."""

    position: npt.NDArray[np.int64]
    targets: Targets


def read_soft(
    uri: str, kind: TargetKind, classes: ClassList, keys: pa.ChunkedArray | pa.Array, top: int | None = None
) -> SoftLabels:
    """The table at `uri` for the images `keys`. `top`: most classes kept of each distribution; the rest becomes residual mass.

    Raises ValueError naming file, row and remedy for classes, keys and numbers that do not fit.
    """
    if uri.lower().endswith(".npy"):
        array, names, found = _npy(uri)
        position = np.arange(len(keys)) if found is None else find_positions(keys, found, uri)
        if len(position) != len(array):
            raise ValueError(
                f"{uri}: {len(array)} rows for {len(position)} images. List the key of each row in {_companion(uri, 'keys.csv')}."
            )
        return SoftLabels(position, _of_dense(array, names, kind, classes, uri, top))
    table = read_table(uri, ("key",))
    if "key" not in table.column_names:
        raise ValueError(
            f"{uri}: columns {', '.join(table.column_names[:10])}; the column `key` (key of the image) is required"
        )
    position = find_positions(keys, table["key"].cast(pa.string()), uri)
    columns = [name for name in table.column_names if name != "key"]
    if set(columns) == {"classes", "weights"}:
        return SoftLabels(position, _of_sparse(table, kind, classes, uri))
    if columns == ["values"]:
        listed = (table.schema.metadata or {}).get(CLASS_NAMES)
        if listed is None:
            raise ValueError(
                f"{uri}: the classes of `values` are unknown. Write their names as JSON into the metadata of the schema"
                f" under {CLASS_NAMES.decode()!r}, or write one column per class"
            )
        array = _matrix(table["values"], len(json.loads(listed)), uri)
        return SoftLabels(position, _of_dense(array, json.loads(listed), kind, classes, uri, top))
    array = (
        np.stack([_numbers(table[name], uri) for name in columns], axis=1) if columns else np.empty((len(position), 0))
    )
    return SoftLabels(position, _of_dense(array, columns, kind, classes, uri, top))


def dense_rows(
    classes: npt.NDArray[np.integer], weights: npt.NDArray[np.floating], num_classes: int
) -> npt.NDArray[np.float32]:
    """Top-P classes and probabilities (n, P) as float32 (n, C) with rows that sum to 1: the residual mass is spread, then renormalised."""
    made = targets.dense(targets.sparse(classes, weights, num_classes), num_classes)
    return (made / made.sum(axis=1, keepdims=True)).astype(np.float32)


def _npy(uri: str) -> tuple[npt.NDArray[Any], list[str], pa.ChunkedArray | None]:
    """The array, the names of its columns, and its keys if there is a file of keys."""
    fs, path = storage.resolve(uri)
    try:
        with fs.open_input_file(path) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
        names = json.loads(storage.get(fs, _companion(path, "classes.json")))
    except FileNotFoundError as error:
        raise ValueError(
            f"{uri}: {error}. The class names of its columns are read from {_companion(uri, 'classes.json')}, a JSON list."
        ) from None
    except ValueError as error:
        raise ValueError(f"{uri}: not an array of numbers with a file of class names ({error})") from None
    if array.ndim != 2:
        raise ValueError(
            f"{uri}: array of shape {array.shape}; one row per image and one column per class are required"
        )
    listed = _companion(uri, "keys.csv")
    has_keys = storage.exists(fs, _companion(path, "keys.csv"))
    return array, names, read_table(listed, ("key",))["key"] if has_keys else None


def _companion(path: str, ending: str) -> str:
    return f"{path.removesuffix('.npy')}.{ending}"


def _matrix(column: pa.ChunkedArray, width: int, uri: str) -> npt.NDArray[Any]:
    """A list column with `width` numbers per row, as (n, width)."""
    lengths = pc.list_value_length(column)
    if column.null_count or not pc.all(pc.equal(lengths, width)).as_py():
        raise ValueError(f"{uri}: `values` must have {width} numbers in every row, one per class")
    return np.concatenate([np.asarray(chunk.flatten()) for chunk in column.chunks] or [np.empty(0)]).reshape(-1, width)


def _numbers(column: pa.ChunkedArray, uri: str) -> npt.NDArray[Any]:
    try:
        return column.cast(pa.float32()).to_numpy()
    except pa.ArrowException as error:
        raise ValueError(f"{uri}: a class column has a value that is not a number ({error})") from None


def _of_dense(
    array: npt.NDArray[Any], names: list[str], kind: TargetKind, classes: ClassList, uri: str, top: int | None
) -> Targets:
    """Targets of an n x k array with the columns `names`."""
    if len(names) != array.shape[1]:
        raise ValueError(f"{uri}: {array.shape[1]} columns and {len(names)} class names")
    if sorted(names) != sorted(classes.names):
        classes.check_same(ClassList(tuple(names)), uri)
    order = [names.index(name) for name in classes.names]
    width = len(classes) if kind != "distribution" or top is None else min(top, len(classes))
    blocks = []
    for start in range(0, max(1, len(array)), DENSE_ROWS):
        block = _checked(np.asarray(array[start : start + DENSE_ROWS], np.float64)[:, order], kind, uri, start)
        blocks.append(targets.top(block, width) if kind == "distribution" else _listed(block, kind))
    return Targets(*(pa.concat_arrays([getattr(block, name) for block in blocks]) for name in Targets._fields))


def _listed(block: npt.NDArray[np.float64], kind: TargetKind) -> Targets:
    """Logits of every class, or the labels with a probability above 0."""
    num_classes = block.shape[1]
    everything = np.tile(np.arange(num_classes), (len(block), 1))
    keep = np.ones(block.shape, bool) if kind == "logits" else block > 0
    return targets.ragged(everything, block, keep, num_classes)


def _checked(block: npt.NDArray[np.float64], kind: TargetKind, uri: str, start: int) -> npt.NDArray[np.float64]:
    """The block, distributions renormalised. Raises ValueError naming the first row that is not of `kind`."""
    finite = np.isfinite(block).all(axis=1)
    if kind == "logits":
        _check_none(~finite, uri, start, "has a logit that is not a finite number")
        simplex = (block >= 0).all(axis=1) & (np.abs(block.sum(axis=1) - 1) < SUM_SLACK)
        if len(block) and simplex.all():
            raise ValueError(
                f"{uri}: the values are probabilities, not logits. Set kind=distribution and a loss for probabilities, e.g. kl."
            )
        return block
    _check_none(
        ~finite | (block < 0).any(axis=1) | (block > 1 + SUM_SLACK).any(axis=1),
        uri,
        start,
        "has a probability outside 0..1",
    )
    if kind == "labels":
        return block.clip(0, 1)
    total = block.sum(axis=1)
    remedy = "set kind=labels if an image may have several labels, kind=logits for logits"
    _check_none(np.abs(total - 1) > SUM_SLACK, uri, start, f"has probabilities that do not sum to 1; {remedy}")
    return block / total[:, None]


def _of_sparse(table: pa.Table, kind: TargetKind, classes: ClassList, uri: str) -> Targets:
    """Targets of `classes` (lists of names) and `weights`."""
    if kind == "logits":
        raise ValueError(
            f"{uri}: a sparse table cannot hold logits, since every class has one. Write one column per class."
        )
    listed, weights = table["classes"].combine_chunks(), table["weights"].combine_chunks()
    index = classes.indices(listed.flatten().cast(pa.string()), uri)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(listed), 0))
    if not np.array_equal(lengths, np.asarray(pc.fill_null(pc.list_value_length(weights), 0))):
        raise ValueError(f"{uri}: lists of classes and of weights differ in length")
    made = targets.from_flat(lengths, index, np.asarray(weights.flatten()), len(classes))
    if kind == "distribution":
        targets.check(made, len(classes), uri)
    elif not ((np.asarray(made.weights.flatten()) >= 0) & (np.asarray(made.weights.flatten()) <= 1)).all():
        raise ValueError(f"{uri}: a weight is outside 0..1")
    return made


def _check_none(bad: npt.NDArray[np.bool_] | np.bool_, uri: str, start: int, what: str) -> None:
    if bad.any():
        raise ValueError(f"{uri}: row {start + int(np.argmax(bad))} {what}")


def slices(labels: SoftLabels, rows: int) -> Iterator[SoftLabels]:
    """The labels in blocks of at most `rows` images, ordered by position."""
    order = np.argsort(labels.position, kind="stable")
    for start in range(0, max(1, len(order)), rows):
        chosen = pa.array(order[start : start + rows])
        yield SoftLabels(
            labels.position[order[start : start + rows]], Targets(*(column.take(chosen) for column in labels.targets))
        )
