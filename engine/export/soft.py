"""Predictions as tables of soft labels for `engine.labels.soft_tables` and other tools: a probability per image and class.

The residual mass is spread evenly over the classes that are not stored; predict with `predict.top_p` = number of classes to store all.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.export.files import csv_lines
from engine.export.step_export import StepExport
from engine.labels.soft_tables import CLASS_NAMES, dense_rows
from engine.predict.pool import settings_of

ROW_GROUP = 65_536


def dense_tables(step: StepExport) -> Iterator[tuple[list[str], np.ndarray]]:
    """Keys and probabilities float32 (n, C) of each shard in address order: a distribution per image, or of sigmoid predictions a probability of
    its own for each class (soft.kind=labels). Raises ValueError for a selection, which lacks most images, and for sigmoid predictions that lack
    classes.
    """
    if step.verb != "predict":
        raise ValueError(f"{step.output.step}: soft labels are exported from predictions. Use a predict-… step.")
    activation = settings_of(step.store, step.predictions).activation
    index = {name: number for number, name in enumerate(step.classes.names)}
    for table in step.tables():
        width = len(table["classes"][0]) if table.num_rows else 1
        classes = np.array([index[name] for name in table["classes"].combine_chunks().flatten().to_pylist()], np.int64)
        weights = table["probabilities"].combine_chunks().flatten().to_numpy().reshape(-1, width)
        if activation == "softmax":
            yield table["key"].to_pylist(), dense_rows(classes.reshape(-1, width), weights, len(index))
            continue
        if width < len(index):
            raise ValueError(
                f"{step.output.step}: sigmoid predictions have no residual mass for the {len(index) - width} classes per image that are not"
                f" stored. Predict with predict.top_p={len(index)}."
            )
        rows = np.empty((table.num_rows, width), np.float32)
        np.put_along_axis(rows, classes.reshape(-1, width), weights, axis=1)
        yield table["key"].to_pylist(), rows


def write_soft_csv(step: StepExport, sink: Any, spreadsheets: bool = False) -> int:
    """Write `key` and one column per class, named like the class. Returns the number of rows."""
    count = 0
    for keys, rows in dense_tables(step):
        header = [] if count else ["key", *step.classes.names]
        lines = ([key, *(f"{value:.6g}" for value in row)] for key, row in zip(keys, rows, strict=True))
        sink.write(csv_lines(lines, header, spreadsheets))
        count += len(keys)
    return count


def write_soft_parquet(step: StepExport, sink: Any) -> int:
    """Write `key` and `values`, float16 lists of fixed size, the class names in the metadata of the schema. Returns the number of rows."""
    names = step.classes.names
    form = pa.schema(
        [("key", pa.string()), ("values", pa.list_(pa.float16(), len(names)))],
        metadata={CLASS_NAMES: json.dumps(names).encode()},
    )
    count = 0
    with pq.ParquetWriter(sink, form, compression="zstd") as writer:
        for keys, rows in dense_tables(step):
            values = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float16).ravel()), len(names))
            writer.write_table(pa.Table.from_arrays([pa.array(keys, pa.string()), values], schema=form), ROW_GROUP)
            count += len(keys)
    return count


def write_npy(step: StepExport, sink: Any) -> int:
    """Write a float16 array n x k, columns in the order of the class list. Class names and keys: `npy_companions`. Returns the number of rows."""
    total = sum(part.rows for part in step.output.parts(step.store.fs))
    header = {"descr": "<f2", "fortran_order": False, "shape": (total, len(step.classes))}
    np.lib.format.write_array_header_1_0(sink, header)
    for _, rows in dense_tables(step):
        sink.write(rows.astype("<f2").tobytes())
    return total


def npy_companions(step: StepExport) -> dict[str, bytes]:
    """Contents of the files next to an array, by their ending: class names and keys."""
    keys = csv_lines([["key"], *([key] for some, _ in dense_tables(step) for key in some)])
    return {"classes.json": json.dumps(step.classes.names).encode(), "keys.csv": keys}
