"""Tables of soft labels from other tools: a number for every image and class, as n x k arrays, as one column a class, or sparse.

- `X.npy`: n x k. `X.classes.json` beside it lists the class names of the columns; `X.keys.csv` (a column `key`) names the images, without it the
  rows are all images in address order.
- Parquet, Arrow: `key` and a list column `values` of k numbers; the schema's metadata `class_names` lists the classes as JSON.
- CSV, Parquet, Arrow: `key` and one column a class, called as the class is, in any order.
- Parquet, Arrow, sparse: `key`, `classes` (names) and `weights`; what the weights lack to 1 is spread over the classes not listed.

A column means a class only by its name: a table of other classes is refused, and one of another order is put in order.
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
from engine.labels.by_key import places_of, read_table
from engine.labels.classes import ClassList
from engine.labels.targets import Targets

TargetKind = Literal["distribution", "logits", "labels"]
"""What the numbers of an image are: probabilities that sum to 1, logits, or several labels each true with its own probability."""

CLASS_NAMES = b"class_names"
SUM_SLACK = 5e-3
"""How far from 1 the probabilities of an image may sum: float16 rounds, and they are renormalised."""
DENSE_ROWS = 65_536


@dataclass(frozen=True)
class SoftLabels:
    """Targets of n images and the place of each among the collection's images in address order."""

    place: npt.NDArray[np.int64]
    targets: Targets


def read_soft(
    uri: str, kind: TargetKind, classes: ClassList, keys: pa.ChunkedArray | pa.Array, top: int | None = None
) -> SoftLabels:
    """The table at `uri` for the images called `keys`. `top`: keep so many classes of each distribution, the rest as residual mass.

    Raises ValueError naming the file, the row and what to do for classes, keys and numbers that do not fit.
    """
    if uri.lower().endswith(".npy"):
        array, names, found = _npy(uri)
        place = np.arange(len(keys)) if found is None else places_of(keys, found, uri)
        if len(place) != len(array):
            raise ValueError(
                f"{uri}: {len(array)} rows for {len(place)} images; list the key of each row in {_beside(uri, 'keys.csv')}"
            )
        return SoftLabels(place, _of_dense(array, names, kind, classes, uri, top))
    table = read_table(uri, ("key",))
    if "key" not in table.column_names:
        raise ValueError(
            f"{uri}: its columns are {', '.join(table.column_names[:10])}; it needs `key`, which names the image"
        )
    place = places_of(keys, table["key"].cast(pa.string()), uri)
    columns = [name for name in table.column_names if name != "key"]
    if set(columns) == {"classes", "weights"}:
        return SoftLabels(place, _of_sparse(table, kind, classes, uri))
    if columns == ["values"]:
        listed = (table.schema.metadata or {}).get(CLASS_NAMES)
        if listed is None:
            raise ValueError(
                f"{uri}: nothing says which class each of the `values` is: put the names as JSON into the schema's metadata"
                f" under {CLASS_NAMES.decode()!r}, or write one column a class"
            )
        array = _matrix(table["values"], len(json.loads(listed)), uri)
        return SoftLabels(place, _of_dense(array, json.loads(listed), kind, classes, uri, top))
    array = np.stack([_numbers(table[name], uri) for name in columns], axis=1) if columns else np.empty((len(place), 0))
    return SoftLabels(place, _of_dense(array, columns, kind, classes, uri, top))


def dense_rows(
    classes: npt.NDArray[np.integer], weights: npt.NDArray[np.floating], num_classes: int
) -> npt.NDArray[np.float32]:
    """Rows of top-P probabilities, (n, P) each, as (n, C) that sum to 1: residual mass spread, float16's rounding undone."""
    made = targets.dense(targets.sparse(classes, weights, num_classes), num_classes)
    return (made / made.sum(axis=1, keepdims=True)).astype(np.float32)


def _npy(uri: str) -> tuple[npt.NDArray[Any], list[str], pa.ChunkedArray | None]:
    """The array, the names of its columns, and its keys where a file tells them."""
    fs, path = storage.resolve(uri)
    try:
        with fs.open_input_file(path) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
        names = json.loads(storage.get(fs, _beside(path, "classes.json")))
    except FileNotFoundError as error:
        raise ValueError(
            f"{uri}: {error}; the class names of its columns stand in {_beside(uri, 'classes.json')}, a JSON list"
        ) from None
    except ValueError as error:
        raise ValueError(f"{uri}: not an array of numbers with class names beside it ({error})") from None
    if array.ndim != 2:
        raise ValueError(f"{uri}: an array of shape {array.shape}; it needs a row an image and a column a class")
    listed = _beside(uri, "keys.csv")
    there = storage.exists(fs, _beside(path, "keys.csv"))
    return array, names, read_table(listed, ("key",))["key"] if there else None


def _beside(path: str, ending: str) -> str:
    return f"{path.removesuffix('.npy')}.{ending}"


def _matrix(column: pa.ChunkedArray, width: int, uri: str) -> npt.NDArray[Any]:
    """A list column of `width` numbers a row as (n, width)."""
    lengths = pc.list_value_length(column)
    if column.null_count or not pc.all(pc.equal(lengths, width)).as_py():
        raise ValueError(f"{uri}: `values` does not hold {width} numbers in every row, one a class")
    return np.concatenate([np.asarray(chunk.flatten()) for chunk in column.chunks] or [np.empty(0)]).reshape(-1, width)


def _numbers(column: pa.ChunkedArray, uri: str) -> npt.NDArray[Any]:
    try:
        return column.cast(pa.float32()).to_numpy()
    except pa.ArrowException as error:
        raise ValueError(f"{uri}: a class column holds what is no number ({error})") from None


def _of_dense(
    array: npt.NDArray[Any], names: list[str], kind: TargetKind, classes: ClassList, uri: str, top: int | None
) -> Targets:
    """Targets of an n x k array whose columns are called `names`."""
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
    """Logits with every class; several labels with those that are not 0."""
    num_classes = block.shape[1]
    everything = np.tile(np.arange(num_classes), (len(block), 1))
    keep = np.ones(block.shape, bool) if kind == "logits" else block > 0
    return targets.ragged(everything, block, keep, num_classes)


def _checked(block: npt.NDArray[np.float64], kind: TargetKind, uri: str, start: int) -> npt.NDArray[np.float64]:
    """The block, distributions renormalised. Raises ValueError naming the first row that is not what `kind` says."""
    finite = np.isfinite(block).all(axis=1)
    if kind == "logits":
        _refuse(~finite, uri, start, "has a logit that is not a finite number")
        simplex = (block >= 0).all(axis=1) & (np.abs(block.sum(axis=1) - 1) < SUM_SLACK)
        if len(block) and simplex.all():
            raise ValueError(
                f"{uri}: these are probabilities, not logits: set kind=distribution and a loss for them, e.g. kl"
            )
        return block
    _refuse(
        ~finite | (block < 0).any(axis=1) | (block > 1 + SUM_SLACK).any(axis=1),
        uri,
        start,
        "has a probability outside 0..1",
    )
    if kind == "labels":
        return block.clip(0, 1)
    total = block.sum(axis=1)
    remedy = "set kind=labels if an image may have several, kind=logits if these are logits"
    _refuse(np.abs(total - 1) > SUM_SLACK, uri, start, f"has probabilities that do not sum to 1; {remedy}")
    return block / total[:, None]


def _of_sparse(table: pa.Table, kind: TargetKind, classes: ClassList, uri: str) -> Targets:
    """Targets of `classes` (lists of names) and `weights`."""
    if kind == "logits":
        raise ValueError(
            f"{uri}: a sparse table cannot hold logits, of which every class has one: write one column a class"
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
        raise ValueError(f"{uri}: a weight lies outside 0..1")
    return made


def _refuse(bad: npt.NDArray[np.bool_] | np.bool_, uri: str, start: int, what: str) -> None:
    if bad.any():
        raise ValueError(f"{uri}: row {start + int(np.argmax(bad))} {what}")


def slices(labels: SoftLabels, rows: int) -> Iterator[SoftLabels]:
    """The labels in pieces of at most `rows` images, in the order of the images."""
    order = np.argsort(labels.place, kind="stable")
    for start in range(0, max(1, len(order)), rows):
        chosen = pa.array(order[start : start + rows])
        yield SoftLabels(
            labels.place[order[start : start + rows]], Targets(*(column.take(chosen) for column in labels.targets))
        )
