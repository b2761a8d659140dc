"""Predictions as tables of soft labels that `engine.labels.soft_tables` and other tools read: a number for every image and class.

Classes beyond the stored top P share what is left evenly; predict with `predict.top_p` = number of classes to have them all.
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

ROW_GROUP = 65_536


def dense_tables(answers: StepExport) -> Iterator[tuple[list[str], np.ndarray]]:
    """Keys and float32 (n, C) of each shard in address order. Raises ValueError for a selection, which has no row for most images."""
    if answers.verb != "predict":
        raise ValueError(f"{answers.output.step}: soft labels are those of predictions: name a predict-… step")
    index = {name: place for place, name in enumerate(answers.classes.names)}
    for table in answers.tables():
        width = len(table["classes"][0]) if table.num_rows else 1
        classes = np.array([index[name] for name in table["classes"].combine_chunks().flatten().to_pylist()], np.int64)
        weights = table["probabilities"].combine_chunks().flatten().to_numpy().reshape(-1, width)
        yield table["key"].to_pylist(), dense_rows(classes.reshape(-1, width), weights, len(index))


def write_soft_csv(answers: StepExport, sink: Any) -> int:
    """`key` and one column a class, called as the class is."""
    count = 0
    for keys, rows in dense_tables(answers):
        header = [] if count else [["key", *answers.classes.names]]
        lines = ([key, *(f"{value:.6g}" for value in row)] for key, row in zip(keys, rows, strict=True))
        sink.write(csv_lines([*header, *lines]))
        count += len(keys)
    return count


def write_soft_parquet(answers: StepExport, sink: Any) -> int:
    """`key` and `values`, float16 lists of fixed size, the class names in the schema's metadata."""
    names = answers.classes.names
    form = pa.schema(
        [("key", pa.string()), ("values", pa.list_(pa.float16(), len(names)))],
        metadata={CLASS_NAMES: json.dumps(names).encode()},
    )
    count = 0
    with pq.ParquetWriter(sink, form, compression="zstd") as writer:
        for keys, rows in dense_tables(answers):
            values = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float16).ravel()), len(names))
            writer.write_table(pa.Table.from_arrays([pa.array(keys, pa.string()), values], schema=form), ROW_GROUP)
            count += len(keys)
    return count


def write_npy(answers: StepExport, sink: Any) -> int:
    """A float16 array n x k for numpy, its columns in the order of the class list. Class names and keys: `beside_npy`."""
    total = sum(part.rows for part in answers.output.parts(answers.store.fs))
    header = {"descr": "<f2", "fortran_order": False, "shape": (total, len(answers.classes))}
    np.lib.format.write_array_header_1_0(sink, header)
    for _, rows in dense_tables(answers):
        sink.write(rows.astype("<f2").tobytes())
    return total


def beside_npy(answers: StepExport) -> dict[str, bytes]:
    """What an array cannot say of itself, by the ending of the file beside it: class names and keys."""
    keys = csv_lines([["key"], *([key] for some, _ in dense_tables(answers) for key in some)])
    return {"classes.json": json.dumps(answers.classes.names).encode(), "keys.csv": keys}
