"""The manifest of a collection: a saved listing that resolves (shard, row) in every process of a run."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.ground import storage
from engine.images import parquet
from engine.images.byte_reader import FileReader
from engine.images.columns import Columns
from engine.images.file_listing import Location, locate, without_credentials
from engine.images.sources import Kind, Listing
from engine.tables import schema

KEYS = pa.schema([("shard", pa.int32()), ("row", pa.int32()), ("key", pa.string())])
LABELS = pa.schema([("shard", pa.int32()), ("row", pa.int32()), ("label", pa.string())])


@dataclass(frozen=True)
class Manifest:
    """A collection of images by address. Pickles small: files are opened on first use."""

    fs: storage.FileSystem
    folder: str
    uri: str
    kind: Kind
    columns: Columns
    digest: str
    label_counts: dict[str, int]
    ignored: dict[str, int]
    shards: pa.Table = field(repr=False)

    @classmethod
    def save(cls, listing: Listing, fs: storage.FileSystem, folder: str) -> Self:
        """Write the listing into `folder` (manifest.json last) and load it. Credentials of the URI are not written."""
        storage.put(fs, f"{folder}/shards.parquet", _encoded(listing.shards, [listing.shards.num_rows]))
        if listing.files is not None:
            storage.put(fs, f"{folder}/files.parquet", _encoded(listing.files, listing.shards["rows"].to_pylist()))
        about = {
            "schema_version": schema.SCHEMA_VERSION,
            "kind": listing.kind,
            "uri": without_credentials(listing.uri),
            "columns": listing.columns.dump(),
            "digest": listing.digest,
            "num_rows": listing.num_rows,
            "ignored": listing.ignored,
            "label_counts": listing.label_counts,
        }
        storage.put(fs, f"{folder}/manifest.json", json.dumps(about, indent=2, ensure_ascii=False).encode())
        return cls.load(fs, folder, listing.uri)

    @classmethod
    def load(cls, fs: storage.FileSystem, folder: str, uri: str | None = None) -> Self:
        """The manifest saved in `folder`. `uri`: the current location of the collection, if it was moved or needs
        credentials.

        Raises ValueError for a missing or damaged manifest, and for one of another schema version.
        """
        try:
            about: dict[str, Any] = json.loads(storage.get(fs, f"{folder}/manifest.json"))
        except FileNotFoundError:
            raise ValueError(f"{folder}: no manifest here. List the collection first.") from None
        except ValueError as error:
            raise ValueError(
                f"{folder}/manifest.json: damaged ({error}). Remove the folder and list the collection again."
            ) from None
        if (version := about.get("schema_version")) != schema.SCHEMA_VERSION:
            raise ValueError(
                f"{folder}: manifest of schema version {version}, this engine reads {schema.SCHEMA_VERSION}. "
                "List the collection again in another store."
            )
        shards = pq.read_table(pa.BufferReader(storage.get(fs, f"{folder}/shards.parquet")))
        schema.check(shards, schema.SHARDS, f"{folder}/shards.parquet")
        columns = Columns.parse(about["columns"])
        return cls(
            fs,
            folder,
            uri or about["uri"],
            about["kind"],
            columns,
            about["digest"],
            about["label_counts"],
            about["ignored"] if isinstance(about["ignored"], dict) else {},  # a number in older listings
            shards,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}

    @property
    def num_shards(self) -> int:
        return self.shards.num_rows

    @cached_property
    def rows(self) -> np.ndarray:
        """Number of images per shard, int32 (num_shards,)."""
        return self.shards["rows"].to_numpy()

    @property
    def num_rows(self) -> int:
        return int(self.rows.sum(dtype=np.int64))

    @property
    def classes(self) -> list[str]:
        """Class names in class order; empty without labels."""
        return list(self.label_counts)

    @property
    def has_keys(self) -> bool:
        """Whether keys come from a key column and identify an image in any collection; otherwise they are paths and row
        numbers."""
        return self.columns.key is not None

    def read(self, shard: int, rows: np.ndarray | None = None, batch_rows: int = 256) -> Iterator[pa.RecordBatch]:
        """Encoded images of a shard as batches of schema.IMAGES in address order. `rows`: sorted row numbers (default:
        all).

        A loose image that cannot be read is null. Raises ValueError for an unreadable Parquet file or tar, and for a
        row out of range.
        """
        self._check(shard, rows)
        if self.kind != "parquet":
            files = self._files(shard)
            yield from self._loose.read(files if rows is None else files.take(pa.array(rows)), batch_rows)
        elif rows is None or len(rows):
            path, start = (self.shards[name][shard].as_py() for name in ("path", "start"))
            yield from self._parquet.read(path, start, int(self.rows[shard]), rows, batch_rows)

    def labels(self, shards: Sequence[int] | None = None) -> pa.Table:
        """(shard, row, label) of all images, or of those in `shards`, in address order; null for an image without label."""
        return self._column("label", LABELS, shards)

    def keys(self, shards: Sequence[int] | None = None) -> pa.Table:
        """(shard, row, key) of all images, or of those in `shards`, in address order."""
        return self._column("key", KEYS, shards)

    def resolve(self, shard: int, rows: np.ndarray) -> list[str]:
        """Keys of rows of a shard."""
        self._check(shard, rows)
        if self.kind == "parquet" and not self.has_keys:
            start = self.shards["start"][shard].as_py()
            return parquet.positional(
                self.shards["path"][shard].as_py(), start + np.asarray(rows, np.int64)
            ).to_pylist()
        return self.keys([shard])["key"].take(pa.array(rows)).to_pylist()

    def find(self, key: str) -> list[tuple[int, int]]:
        """Addresses of the images with this key; empty without a match."""
        if self.kind == "parquet" and not self.has_keys:
            path, _, number = key.rpartition(":")
            row = int(number) if number.isdecimal() else -1
            own = self.shards.filter(pc.equal(self.shards["path"], path)).to_pylist()
            return [
                (one["shard"], row - one["start"]) for one in own if one["start"] <= row < one["start"] + one["rows"]
            ]
        if self.kind != "parquet":
            with self.fs.open_input_file(f"{self.folder}/files.parquet") as file:
                hits = pq.read_table(file, columns=["shard", "row"], filters=[("key", "=", key)])
            return list(zip(hits["shard"].to_pylist(), hits["row"].to_pylist(), strict=True))
        addresses = (self.keys([shard]) for shard in range(self.num_shards))
        return [
            (one["shard"], one["row"])
            for table in addresses
            for one in table.filter(pc.equal(table["key"], key)).to_pylist()
        ]

    def _check(self, shard: int, rows: np.ndarray | None) -> None:
        if not 0 <= shard < self.num_shards:
            raise ValueError(
                f"{without_credentials(self.uri)}: shard {shard} of {self.num_shards}. Was the table written for another listing?"
            )
        if rows is not None and len(rows) and not (rows[0] >= 0 and rows[-1] < self.rows[shard]):
            raise ValueError(
                f"{without_credentials(self.uri)}: rows {rows[0]} to {rows[-1]} of shard {shard}, which has {self.rows[shard]}"
            )

    @cached_property
    def _location(self) -> Location:
        return locate(self.uri)

    @cached_property
    def _parquet(self) -> parquet.RowReader:
        return parquet.RowReader(self._location, self.columns)

    @cached_property
    def _loose(self) -> FileReader:
        return FileReader(self._location, self.kind)

    @cached_property
    def _footer(self) -> pq.FileMetaData:
        with self.fs.open_input_file(f"{self.folder}/files.parquet") as file:
            return pq.read_metadata(file)

    def _files(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Rows of schema.FILES of one shard, which is one row group."""
        with pq.ParquetFile(self.fs.open_input_file(f"{self.folder}/files.parquet"), metadata=self._footer) as file:
            return file.read_row_group(shard, columns=columns, use_threads=False)

    def _column(self, name: str, table: pa.Schema, shards: Sequence[int] | None) -> pa.Table:
        wanted = range(self.num_shards) if shards is None else shards
        if self.kind != "parquet":
            with pq.ParquetFile(self.fs.open_input_file(f"{self.folder}/files.parquet"), metadata=self._footer) as file:
                return (
                    file.read_row_groups(list(wanted), columns=table.names).cast(table)
                    if len(wanted)
                    else table.empty_table()
                )
        parts: list[pa.Table] = []
        for path, group in groupby(wanted, key=lambda shard: self.shards["path"][shard].as_py()):
            mine = list(group)
            starts, rows = (self.shards[one].to_numpy()[mine] for one in ("start", "rows"))
            if not rows.sum():
                continue
            span = range(int(starts.min()), int((starts + rows).max()))
            values = self._read_column(path, name, span)
            for shard, start, count in zip(mine, starts - span.start, rows, strict=True):
                number = pa.array(np.full(count, shard, np.int32))
                part = values.slice(start, count)
                parts.append(pa.table([number, np.arange(count, dtype=np.int32), part], schema=table))
        return pa.concat_tables(parts) if parts else table.empty_table()

    def _read_column(self, path: str, name: str, rows: range) -> pa.ChunkedArray:
        """Keys or labels of some rows of a Parquet file."""
        if name == "key" and self.columns.key is not None:
            values = parquet.keys(self._location, path, self.columns.key, rows)
        elif name == "label" and self.columns.label is not None:
            values = parquet.labels(self._location, path, self.columns, rows)
        elif name == "key":
            values = parquet.positional(path, np.arange(rows.start, rows.stop))
        else:
            values = pa.nulls(len(rows), pa.string())
        return pa.chunked_array([values])


def _encoded(table: pa.Table, groups: list[int]) -> memoryview:
    """A Parquet file in memory with row groups of `groups` rows."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        start = 0
        for rows in groups:
            writer.write_table(table.slice(start, rows))
            start += rows
    return memoryview(sink.getvalue())
