"""List a collection of images: its kind, its shards, its labels and the digest of its contents."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from engine.ground.encodings import composed
from engine.images import columns as cols
from engine.images import folder_labels, formats, loose, parquet, tables, tars
from engine.images.columns import Columns, Labelling
from engine.images.file_listing import (
    LISTING_THREADS,
    Found,
    Location,
    Progress,
    list_image_files,
    locate,
    with_extension,
    without_credentials,
)
from engine.settings.data import SourceSettings

DIGEST_ROWS = 65_536
"""Rows that are digested at once."""

Kind = Literal["parquet", "folder", "uris", "webdataset"]


@dataclass(frozen=True)
class Listing:
    """The listing of a collection. Addresses (shard, row) count from 0 in the order of paths and rows."""

    kind: Kind
    uri: str
    shards: pa.Table
    """schema.SHARDS"""
    files: pa.Table | None
    """schema.FILES, sorted by address; None for Parquet."""
    digest: str
    """SHA-256 in hex of relative paths, sizes, Parquet footers and the division into shards; independent of the
    location."""
    columns: Columns = field(default_factory=Columns)
    label_counts: dict[str, int] = field(default_factory=dict)
    """Number of images per class, in class order; empty without labels."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Number of files and members of tars that are neither images nor labels of the collection, by ending or other reason."""
    labels_read: int = 0
    """Number of members of tars that hold the label of a sample."""
    notes: tuple[str, ...] = ()
    """Sentences on what is odd about the collection."""

    @property
    def num_rows(self) -> int:
        return pc.sum(self.shards["rows"]).as_py() or 0


def list_images(
    uri: str,
    source: SourceSettings = SourceSettings(),  # noqa: B008 (frozen)
    *,
    labelled: bool = False,
    progress: Progress | None = None,
) -> Listing:
    """List the collection at `uri`: image files (label: first folder), Parquet with encoded images, CSV/Parquet tables
    of URIs, WebDataset tars.

    The kind depends on the files. `labelled`: whether every image must have a label and every class folder an image.
    Raises ValueError naming the file and the remedy when there are no images or they cannot be used.
    """
    location = locate(uri)
    where = without_credentials(uri)
    found = list_image_files(location, progress)
    how = Labelling(formats.with_dots(source.extensions), source.label_column, source.encoding)
    kind, files = _kind(found, how.extensions, where)
    ignored = found.ignored + _endings(found.files, files)
    labels_read = 0
    notes: list[str] = []
    names = files["path"].to_pylist() if kind != "folder" else []
    columns = Columns()
    counts: dict[str, int] = {}
    identity: list[object] = []
    if kind == "tables":
        foots = (
            parquet.footers(location, with_extension(files, (".parquet",)), progress)
            if names[0].lower().endswith(".parquet")
            else []
        )
        schemas = [cols.with_partitions(foot.schema, path) for foot, path in zip(foots, names, strict=False)]
        common = cols.common_schema(schemas or [tables.csv_schema(location, names[0], source.encoding)])
        columns = cols.choose(common, source.image_column, source.key_column, source.label_column, names[0])
        for own, path in zip(schemas, names, strict=False):
            cols.check_part(own, columns, common, path, names[0])
        if not schemas:
            tables.check_label(common, columns, names[0])
        identity = [foot.digest for foot in foots]
    if columns.image is not None:
        listed, table = parquet.shards(files, foots, source.rows_per_shard), None
        counts = _parquet_labels(location, names, columns)
        result: Kind = "parquet"
    else:
        if kind == "folder":
            made = folder_labels.label_files(files, found.files, location, how)
            items, containers, result = [made.items], [""], "folder"
            notes += made.notes
            labels_read = len(made.metadata)
            ignored -= Counter(formats.ending(path) for path in made.metadata)
        elif kind == "tars":
            every = tars.index(location, files, how, progress)
            items, containers, result = [one.items for one in every], names, "webdataset"
            ignored += sum((one.ignored for one in every), Counter())
            labels_read = sum(one.labels for one in every)
        else:
            items, result = [tables.items(location, name, columns, source.encoding) for name in names], "uris"
            every_row = pa.concat_tables(items)
            items, containers = [every_row.filter(pc.invert(cols.too_long(every_row["key"])))], [""]
            ignored += Counter({formats.TOO_LONG: every_row.num_rows - items[0].num_rows})
            notes += tables.unusable(items[0])
        listed, table = loose.shards(items, containers, source.rows_per_shard, source.shard_bytes)
        counts = _count(table["label"])
        if repeated := loose.find_repeated(table["key"]):
            raise ValueError(
                f"{where}: keys that occur more than once: {', '.join(map(repr, repeated))}. "
                "A key identifies one image. Remove the repeated rows."
            )
        if progress:
            progress(table.num_rows)
    if not listed.num_rows:
        raise ValueError(
            f"{where}: {files.num_rows} files without any image. Check the path of the collection. {_explained(ignored)}"
        )
    if labelled:
        if kind == "folder":
            _check_folders(where, [composed(name) for name in found.folders], counts, bool(labels_read))
        _check_labels(where, result, table, listed, counts)
    digest = _digest([result, columns.dump(), identity, counts], (files, listed, table))
    return Listing(
        result, uri, listed, table, digest, columns, counts, formats.shorten(ignored), labels_read, tuple(notes)
    )


def _endings(found: pa.Table, files: pa.Table) -> Counter[str]:
    """Number of the files in `found` that are not in `files`, by ending."""
    other = found["path"].filter(pc.invert(pc.is_in(found["path"], value_set=files["path"])))
    return Counter(formats.ending(path) for path in other.to_pylist())


def _explained(ignored: Counter[str]) -> str:
    return formats.explain_ignored(formats.shorten(ignored)) + "." if ignored else ""


def _kind(looked: Found, endings: tuple[str, ...], where: str) -> tuple[Literal["folder", "tables", "tars"], pa.Table]:
    """The kind of the collection and its files. Raises ValueError for no images, or files of more than one kind."""
    found = looked.files
    present = {
        "Parquet files": with_extension(found, (".parquet",)),
        "tars": with_extension(found, (".tar",)),
        "image files": with_extension(found, endings),
    }
    kinds = {name: files for name, files in present.items() if files.num_rows}
    if len(kinds) == 2 and "Parquet files" in kinds and folder_labels.is_img2dataset(found):
        del kinds["Parquet files"]
    if not kinds and found.num_rows == 1 and looked.is_file:
        kinds = {"lists": files} if (files := with_extension(found, (tables.LIST,))).num_rows else {}
    if not kinds:
        kinds = {"CSV files": files} if (files := with_extension(found, tables.EXTENSIONS)).num_rows else {}
    if len(kinds) > 1:
        counted = " and ".join(f"{files.num_rows} {name}" for name, files in kinds.items())
        raise ValueError(f"{where}: holds {counted}. Give the folder or the files of one kind.")
    if not kinds:
        packed = with_extension(found, (".tar.gz", ".tgz", ".tar.zst", ".zip")).num_rows
        remedy = "unpack the archives" if packed else "expected images, .parquet, .csv or .tar files"
        if with_extension(found, (".arrow",)).num_rows:
            remedy = "files of datasets.save_to_disk: write them with dataset.to_parquet(...)"
        ignored = _explained(looked.ignored + _endings(found, found.slice(0, 0)))
        raise ValueError(f"{where}: no images among {found.num_rows} files; {remedy}. {ignored}")
    name, files = next(iter(kinds.items()))
    return {"image files": "folder", "tars": "tars"}.get(name, "tables"), files  # type: ignore[return-value]


def _parquet_labels(location: Location, names: list[str], columns: Columns) -> dict[str, int]:
    """Number of images per class over all files; reads only the label column."""
    if columns.label is None:
        return {}
    total = Counter[str]()

    def counted(path: str) -> dict[str, int]:
        return _count(parquet.labels(location, path, columns))

    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for one in pool.map(counted, names):
            total.update(one)
    return {name: total[name] for name in cols.ordered(total)}


def _count(labels: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    counts = {
        str(one["values"]): one["counts"] for one in pc.value_counts(labels).to_pylist() if one["values"] is not None
    }
    return {name: counts[name] for name in cols.ordered(counts)}


def _check_folders(where: str, folders: list[str], counts: dict[str, int], has_metadata: bool) -> None:
    """Raise ValueError for folders that are splits, and for class folders without an image."""
    if splits := folder_labels.splits_among(folders):
        raise ValueError(
            f"{where}: the folders {', '.join(splits)} are splits, not classes. Give one of them: {where}/{splits[-1]}"
        )
    classes = [name for name in folders if name.lower() not in folder_labels.UNLABELLED]
    if not has_metadata and counts and (empty := [name for name in classes if name not in counts]):
        raise ValueError(
            f"{where}: class folders without an image: {', '.join(empty[:10])}. Add images or remove the folder."
        )


def _check_labels(where: str, kind: Kind, files: pa.Table | None, shards: pa.Table, counts: dict[str, int]) -> None:
    total = pc.sum(shards["rows"]).as_py() or 0
    if not counts:
        remedy = "put the images into one folder per class" if kind == "folder" else "set data.label_column"
        raise ValueError(f"{where}: no image has a label; {remedy}")
    if (without := total - sum(counts.values())) > 0:
        named = "" if files is None else f", such as {files.filter(pc.is_null(files['label']))['key'][0].as_py()}"
        raise ValueError(
            f"{where}: {without} of {total} images have no label{named}. Label them or move them to the pool."
        )


def _digest(about: list[object], listed: Sequence[pa.Table | None]) -> str:
    """SHA-256 in hex of everything that addresses and contents depend on, and of nothing that depends on the location."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for part in listed:
        if part is not None:
            for name in part.column_names:
                digest.update(name.encode())
                for start in range(0, part.num_rows, DIGEST_ROWS):
                    _update(digest, part[name].slice(start, DIGEST_ROWS))
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", column: pa.ChunkedArray) -> None:
    """Digest a column of strings or integers without a Python object per value."""
    values = column.combine_chunks()
    if not pa.types.is_string(values.type):
        digest.update(pc.fill_null(values, -1).to_numpy().astype("<i8").tobytes())
        return
    digest.update(pc.fill_null(pc.binary_length(values), -1).to_numpy().astype("<i4").tobytes())
    joined = pa.LargeListArray.from_arrays([0, len(values)], pc.fill_null(values, ""))
    digest.update(pc.binary_join(joined, "")[0].as_buffer())
