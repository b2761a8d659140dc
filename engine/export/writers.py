"""Export of a step in the formats of other tools: CSV, Parquet, Label Studio, a folder of links by class.

Keys and class names are untrusted. They are exact in CSV, unless it is asked for as a spreadsheet, where a cell that would run as a formula is
prefixed with an apostrophe; JSON escapes HTML tags; names are sanitised before they become paths.
"""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.export.files import check_absent, csv_lines
from engine.export.soft import npy_companions, write_npy, write_soft_csv, write_soft_parquet
from engine.export.step_export import StepExport
from engine.ground import storage

ROW_GROUP = 65_536


class Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


def write_csv(step: StepExport, sink: Sink, spreadsheets: bool = False) -> int:
    """Write one line per image: key, address, class, probability, and for predictions the other classes. Returns the number of lines."""
    count = 0
    for table in step.tables():
        header = [] if count else _header(step, table)
        sink.write(csv_lines(map(_cells, table.to_pylist()), header, spreadsheets))
        count += table.num_rows
    return count


def write_parquet(step: StepExport, sink: Sink) -> int:
    """Write the tables unchanged. Returns the number of rows."""
    count = 0
    with pq.ParquetWriter(sink, step.schema, compression="zstd") as writer:
        for table in step.tables():
            writer.write_table(table, row_group_size=ROW_GROUP)
            count += table.num_rows
    return count


def write_label_studio(step: StepExport, sink: Sink) -> int:
    """Write Label Studio tasks with predictions, a JSON array, for a labelling config with `<Image name="image">` and
    `<Choices name="label" toName="image">`."""
    count = 0
    sink.write(b"[")
    for table in step.tables():
        for row in table.to_pylist():
            sink.write((b",\n" if count else b"\n") + safe_json(task(row, step)).encode())
            count += 1
    sink.write(b"\n]\n")
    return count


def task(row: dict[str, Any], step: StepExport) -> dict[str, Any]:
    """One task of Label Studio: location of the image, and the best class with its probability."""
    name, odds = _best(row)
    prediction = {
        "model_version": step.output.step,
        "score": round(odds, 6),
        "result": [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [name]}}],
    }
    return {"data": {"image": _location(row["key"], step), "key": row["key"]}, "predictions": [prediction]}


def write_folder(step: StepExport, out: Path) -> int:
    """`out/<class>/<shard>-<row>-<name>`: links to the files of a local folder, copies of images from tables, tars and object stores."""
    manifest = step.manifest
    local = manifest.kind == "folder" and isinstance(storage.resolve(manifest.uri)[0], pafs.LocalFileSystem)
    root = Path(storage.resolve(manifest.uri)[1])
    folders = class_folders(step.classes.names)
    for folder in folders.values():
        (out / folder).mkdir(parents=True, exist_ok=True)
    count = 0
    for table in step.tables():
        rows = table.to_pylist()
        images = {} if local or not rows else _images(step, rows[0]["shard"], table["row"].to_numpy())
        for row in rows:
            path = out / folders[_best(row)[0]] / file_name(row["shard"], row["row"], row["key"])
            # an image is selected at most once per class, but an earlier run may have made the link
            with suppress(FileExistsError):
                if local:
                    os.symlink(root / row["key"], path)
                else:
                    with path.open("xb") as file:
                        file.write(images[row["row"]])
            count += 1
    return count


def _images(step: StepExport, shard: int, rows: np.ndarray) -> dict[int, bytes]:
    """Encoded images of some rows of a shard."""
    return {
        row: image
        for batch in step.manifest.read(shard, np.unique(rows))
        for row, image in zip(batch["row"].to_pylist(), batch["image"].to_pylist(), strict=True)
    }


def safe_json(value: Any) -> str:
    """JSON without characters that could begin an HTML tag."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def class_folders(names: tuple[str, ...]) -> dict[str, str]:
    """A folder name per class: the class name if it is safe and distinct, else the sanitised name and the index."""
    safe = {name: re.sub(r"[^\w .+-]", "_", name).strip(" .") for name in names}
    lowered = [one.lower() for one in safe.values()]
    return {
        name: folder if folder == name and lowered.count(folder.lower()) == 1 else f"{folder}-{index}"
        for index, (name, folder) in enumerate(safe.items())
    }


def file_name(shard: int, row: int, key: str) -> str:
    """A file name: the address, which makes it unique, and the end of the key."""
    tail = re.sub(r"[^\w.+-]", "_", key.rsplit("/", 1)[-1])[-100:]
    return f"{shard:06d}-{row:06d}-{tail}"


def _header(step: StepExport, table: pa.Table) -> list[str]:
    if step.verb == "select":
        return ["key", "shard", "row", "class", "probability", "rank", "count"]
    width = len(table["classes"][0])
    more = [f"{name}_{rank}" for rank in range(2, width + 1) for name in ("class", "probability")]
    return ["key", "shard", "row", "class", "probability", *more]


def _cells(row: dict[str, Any]) -> list[Any]:
    values = [row["key"], row["shard"], row["row"]]
    if "class" in row:
        return [*values, row["class"], f"{row['probability']:.6g}", row["rank"], row["count"]]
    for name, odds in zip(row["classes"], row["probabilities"], strict=True):
        values += [name, f"{odds:.6g}"]
    return values


def _best(row: dict[str, Any]) -> tuple[str, float]:
    return (row["class"], row["probability"]) if "class" in row else (row["classes"][0], row["probabilities"][0])


def _location(key: str, step: StepExport) -> str:
    """URI of an image that is a file, else its key."""
    return storage.join(step.manifest.uri, key) if step.manifest.kind == "folder" else key


FORMATS: dict[str, Callable[..., int]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "label-studio": write_label_studio,
    "soft-csv": write_soft_csv,
    "soft-parquet": write_soft_parquet,
    "npy": write_npy,
}


def export(step: StepExport, kind: str, out: str, spreadsheets: bool = False) -> int:
    """Write the step to `out`, a path or URI, in the format `kind` (a key of FORMATS, or folder). Returns the number of rows.

    The file is written atomically. `spreadsheets`: defuse what a spreadsheet would run as a formula, in csv and soft-csv.
    Raises ValueError when `out` exists, and for spreadsheets of another kind.
    """
    if spreadsheets and kind not in ("csv", "soft-csv"):
        raise ValueError(f"--spreadsheets is for CSV, not for {kind}: leave it out, or take --format csv or soft-csv.")
    options = {"spreadsheets": True} if spreadsheets else {}
    fs, path = storage.resolve(out)
    if kind == "folder":
        if not isinstance(fs, pafs.LocalFileSystem):
            raise ValueError(f"{out}: a folder of links needs a local disk. Export csv or parquet instead.")
        if Path(path).exists() and any(Path(path).iterdir()):
            raise ValueError(f"{out}: already exists. Choose another path, or remove it.")
        return write_folder(step, Path(path))
    check_absent(out)
    fs.create_dir(os.path.dirname(path), recursive=True)
    if kind == "npy":
        for ending, data in npy_companions(step).items():
            storage.put(fs, f"{path.removesuffix('.npy')}.{ending}", data)
    if not isinstance(fs, pafs.LocalFileSystem):  # an object is published when its stream closes
        with fs.open_output_stream(path) as stream:
            return FORMATS[kind](step, stream, **options)
    temporary = f"{path}.tmp"
    try:
        with open(temporary, "wb") as file:
            count = FORMATS[kind](step, file, **options)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return count
