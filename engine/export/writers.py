"""The answers of a step in the formats of other tools: CSV, Parquet, Label Studio, a folder of links by class.

Keys and class names come from other people's files. A cell that a spreadsheet would run as a formula gets an apostrophe before it; JSON
escapes what a page could take for a tag; a name becomes a path only without what could lead out of the folder.
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
from engine.export.soft import beside_npy, write_npy, write_soft_csv, write_soft_parquet
from engine.export.step_export import StepExport
from engine.ground import storage

ROW_GROUP = 65_536


class Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


def write_csv(answers: StepExport, sink: Sink) -> int:
    """One line an image: key, class, probability, and for predictions the further classes. Returns the lines written."""
    count = 0
    for table in answers.tables():
        header = [] if count else [_header(answers, table)]
        sink.write(csv_lines([*header, *map(_cells, table.to_pylist())]))
        count += table.num_rows
    return count


def write_parquet(answers: StepExport, sink: Sink) -> int:
    """The tables as they are."""
    count = 0
    with pq.ParquetWriter(sink, answers.schema, compression="zstd") as writer:
        for table in answers.tables():
            writer.write_table(table, row_group_size=ROW_GROUP)
            count += table.num_rows
    return count


def write_label_studio(answers: StepExport, sink: Sink) -> int:
    """Label Studio's tasks with predictions, a JSON array. Its labelling config has `<Image name="image">` and
    `<Choices name="label" toName="image">`."""
    count = 0
    sink.write(b"[")
    for table in answers.tables():
        for row in table.to_pylist():
            sink.write((b",\n" if count else b"\n") + safe_json(task(row, answers)).encode())
            count += 1
    sink.write(b"\n]\n")
    return count


def task(row: dict[str, Any], answers: StepExport) -> dict[str, Any]:
    """One task of Label Studio: where the image is, and the best class with its probability."""
    name, odds = _best(row)
    prediction = {
        "model_version": answers.output.step,
        "score": round(odds, 6),
        "result": [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [name]}}],
    }
    return {"data": {"image": _place(row["key"], answers), "key": row["key"]}, "predictions": [prediction]}


def write_folder(answers: StepExport, out: Path) -> int:
    """`out/<class>/<shard>-<row>-<name>`: links to the files of a local folder, copies of images that stand in tables, tars or elsewhere."""
    manifest = answers.manifest
    local = manifest.kind == "folder" and isinstance(storage.resolve(manifest.uri)[0], pafs.LocalFileSystem)
    root = Path(storage.resolve(manifest.uri)[1])
    folders = class_folders(answers.classes.names)
    for folder in folders.values():
        (out / folder).mkdir(parents=True, exist_ok=True)
    count = 0
    for table in answers.tables():
        rows = table.to_pylist()
        images = {} if local or not rows else _images(answers, rows[0]["shard"], table["row"].to_numpy())
        for row in rows:
            place = out / folders[_best(row)[0]] / file_name(row["shard"], row["row"], row["key"])
            with suppress(FileExistsError):  # a class may choose an image once only, but a rerun meets its own links
                if local:
                    os.symlink(root / row["key"], place)
                else:
                    with place.open("xb") as file:
                        file.write(images[row["row"]])
            count += 1
    return count


def _images(answers: StepExport, shard: int, rows: np.ndarray) -> dict[int, bytes]:
    """Encoded images of some rows of a shard."""
    return {
        row: image
        for batch in answers.manifest.read(shard, np.unique(rows))
        for row, image in zip(batch["row"].to_pylist(), batch["image"].to_pylist(), strict=True)
    }


def safe_json(value: Any) -> str:
    """JSON in which no tag can begin, whatever page it is pasted into."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def class_folders(names: tuple[str, ...]) -> dict[str, str]:
    """A folder for each class: its name where that is a harmless and distinct one, else what is left of it and its index."""
    harmless = {name: re.sub(r"[^\w .+-]", "_", name).strip(" .") for name in names}
    lowered = [one.lower() for one in harmless.values()]
    return {
        name: made if made == name and lowered.count(made.lower()) == 1 else f"{made}-{index}"
        for index, (name, made) in enumerate(harmless.items())
    }


def file_name(shard: int, row: int, key: str) -> str:
    """A name that is distinct by its address, with the end of the key for a person's eye."""
    tail = re.sub(r"[^\w.+-]", "_", key.rsplit("/", 1)[-1])[-100:]
    return f"{shard:06d}-{row:06d}-{tail}"


def _header(answers: StepExport, table: pa.Table) -> list[str]:
    if answers.verb == "select":
        return ["key", "shard", "row", "class", "probability", "rank", "count"]
    width = len(table["classes"][0])
    more = [f"{name}_{place}" for place in range(2, width + 1) for name in ("class", "probability")]
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


def _place(key: str, answers: StepExport) -> str:
    """The address of an image where it has one of its own, else its key."""
    return storage.join(answers.manifest.uri, key) if answers.manifest.kind == "folder" else key


FORMATS: dict[str, Callable[[StepExport, Sink], int]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "label-studio": write_label_studio,
    "soft-csv": write_soft_csv,
    "soft-parquet": write_soft_parquet,
    "npy": write_npy,
}


def export(answers: StepExport, kind: str, out: str) -> int:
    """Write the answers to `out`, a path or URI, as `kind` (csv, parquet, label-studio, folder). Returns the number of rows.

    The file appears when it is whole. Raises ValueError when something stands at `out` already.
    """
    fs, path = storage.resolve(out)
    if kind == "folder":
        if not isinstance(fs, pafs.LocalFileSystem):
            raise ValueError(f"{out}: a folder of links needs a local disk; export csv or parquet there")
        if Path(path).exists() and any(Path(path).iterdir()):
            raise ValueError(f"{out}: is there already; name another place, or remove it")
        return write_folder(answers, Path(path))
    check_absent(out)
    fs.create_dir(os.path.dirname(path), recursive=True)
    if kind == "npy":
        for ending, data in beside_npy(answers).items():
            storage.put(fs, f"{path.removesuffix('.npy')}.{ending}", data)
    if not isinstance(fs, pafs.LocalFileSystem):  # an object appears when its stream closes
        with fs.open_output_stream(path) as stream:
            return FORMATS[kind](answers, stream)
    beside = f"{path}.tmp"
    try:
        with open(beside, "wb") as file:
            count = FORMATS[kind](answers, file)
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)
    return count
