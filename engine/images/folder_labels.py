"""Labels of image files: the first folder, or a `metadata.csv` or `.jsonl` among the images; folders that are splits are no classes."""

import posixpath
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from engine.ground.encodings import compose
from engine.images import tables
from engine.images.columns import LABEL_NAMES, Labelling
from engine.images.file_listing import Location
from engine.images.loose import ITEMS

SPLITS = frozenset(["train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "evaluation"])
"""Names of folders (in lower case) that are no classes when all folders have one of them."""
UNLABELLED = frozenset(("unlabeled", "unlabelled"))
"""Names of folders (in lower case) whose images have no label."""
METADATA = ("metadata.csv", "metadata.jsonl")
FILE_NAME = "file_name"
"""Column of a metadata file with paths relative to its folder, as in Hugging Face's `imagefolder`."""


@dataclass(frozen=True)
class Labelled:
    """Images with their labels."""

    items: pa.Table
    """loose.ITEMS"""
    metadata: list[str]
    """Metadata files whose labels were used."""
    notes: list[str]


def label_files(images: pa.Table, found: pa.Table, location: Location, how: Labelling) -> Labelled:
    """ITEMS of image files: the key is the relative path, the label that of a metadata file, else the first folder (null at the root).

    `found`: all files. Raises ValueError for a metadata file
    that cannot be read or names an image twice.
    """
    path, notes = images["path"], list[str]()
    label = first_folders(path)
    names = [name for name in pc.unique(label).to_pylist() if name is not None]
    if splits := splits_among(names):
        notes.append(f"folders {', '.join(splits)} are splits, not classes: the images have no labels")
        label = pa.chunked_array([pa.nulls(len(path), pa.string())])
    numbered = _described(found["path"].to_pylist())  # img2dataset's folders are no classes
    without = [name for name in names if name.lower() in UNLABELLED or name in numbered]
    label = pc.if_else(pc.is_in(label, value_set=pa.array(without, pa.string())), None, label)
    used = []
    for one in [one for one in found["path"].to_pylist() if posixpath.basename(one) in METADATA]:
        rows = _metadata(location, one, how)
        if isinstance(rows, str):
            notes.append(rows)
            continue
        used.append(one)
        inside = pc.starts_with(path, posixpath.dirname(one) + "/") if "/" in one else pa.scalar(True)
        at = pc.index_in(path, value_set=pa.array(rows, pa.string()))
        label = pc.if_else(inside, pa.array(rows.values(), pa.string()).take(at), label)
        if missing := len(rows) - len(pc.unique(at.drop_null())):
            notes.append(f"{one}: {missing} rows name no image")
        notes.append(f"{one}: labels of {len(rows) - missing} images")
    return Labelled(pa.table([path, path, images["bytes"], compose(label)], schema=ITEMS), used, notes)


def first_folders(path: pa.ChunkedArray) -> pa.ChunkedArray:
    """The first folder of each path, null for a file at the root."""
    slash = pc.find_substring(path, "/")
    folder = pc.list_element(pc.split_pattern(path, "/", max_splits=1), 0) if len(path) else path
    return pc.if_else(pc.greater_equal(slash, 0), folder, pa.scalar(None, pa.string()))


def is_img2dataset(found: pa.Table) -> bool:
    """Whether every Parquet file describes a tar or a folder of its name, as img2dataset writes them: the images are there."""
    paths = found["path"].to_pylist()
    tars = {path.removesuffix(".tar") for path in paths if path.endswith(".tar")}
    folders = {posixpath.dirname(path) for path in paths}
    return all(stem in tars or stem in folders for stem in _described(paths))


def _described(paths: list[str]) -> set[str]:
    return {path.removesuffix(".parquet") for path in paths if path.endswith(".parquet")}


def splits_among(names: list[str]) -> list[str]:
    """The folders that are splits, if all that are not for unlabelled images are."""
    classes = sorted(name for name in names if name.lower() not in UNLABELLED)
    return classes if all(name.lower() in SPLITS for name in classes) else []


def _metadata(location: Location, path: str, how: Labelling) -> dict[str, str | None] | str:
    """Label by path relative to the collection; a sentence when the file has no labels."""
    table = tables.read_columns(location, path, how.encoding)
    label = how.field or next((name for name in LABEL_NAMES if name in table.column_names), None)
    if FILE_NAME not in table.column_names or label not in table.column_names:
        shown = ", ".join(table.column_names)
        return f"{path}: not used, no column {FILE_NAME} or none of labels among {shown} (data.label_column names it)"
    folder = posixpath.dirname(path)
    names = [posixpath.normpath(posixpath.join(folder, name)) for name in table[FILE_NAME].to_pylist() if name]
    rows = dict(zip(names, table.filter(pc.is_valid(table[FILE_NAME]))[label].to_pylist(), strict=True))
    if len(rows) < len(names):
        raise ValueError(f"{path}: {len(names) - len(rows)} images are in more than one row. Remove the repeated rows.")
    return rows
