"""Parquet files with encoded images: split their rows into shards, and read the rows of a shard."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from engine.ground import storage
from engine.images import columns as cols
from engine.images.columns import Columns
from engine.images.file_listing import LISTING_THREADS, Location, Progress
from engine.tables import schema

TAIL_BYTES = 64 * 1024
"""Bytes read from the end of each file while listing: one request contains nearly every footer."""

READ_BUFFER, LOCAL_BUFFER = 8 * 2**20, 256 * 2**10
"""Bytes read ahead per column: row groups of gigabytes are streamed, not held in memory. Fewer on a local disk, to fit the cache of a core."""


@dataclass(frozen=True)
class Footer:
    """RowReader and stored bytes of the row groups of a file, its schema, and the SHA-256 of its footer."""

    rows: tuple[int, ...]
    sizes: tuple[int, ...]
    schema: pa.Schema
    digest: str


def footer(location: Location, path: str, size: int) -> Footer:
    """The footer of a Parquet file. Raises ValueError when it cannot be read."""
    try:
        with location.fs.open_input_file(location.path(path)) as file:
            tail = file.read_at(min(size, TAIL_BYTES), size - min(size, TAIL_BYTES))
            need = int.from_bytes(tail[-8:-4], "little") + 8
            if len(tail) < need <= size:
                tail = file.read_at(need, size - need)
        meta = pq.read_metadata(pa.BufferReader(tail))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
    stored = tuple(sum(group.column(c).total_compressed_size for c in range(group.num_columns)) for group in groups)
    digest = hashlib.sha256(tail[-need:]).hexdigest()
    return Footer(tuple(group.num_rows for group in groups), stored, meta.schema.to_arrow_schema(), digest)


def footers(location: Location, found: pa.Table, progress: Progress | None) -> list[Footer]:
    """Footers of all files, in order, read concurrently; progress counts rows."""
    result: list[Footer] = []
    total = 0
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for one in pool.map(
            lambda args: footer(location, *args),
            zip(found["path"].to_pylist(), found["bytes"].to_pylist(), strict=True),
        ):
            result.append(one)
            total += sum(one.rows)
            if progress:
                progress(total)
    return result


def split_row_groups(groups: tuple[int, ...], rows_per_shard: int) -> list[tuple[int, int]]:
    """(first row, number of rows) of each shard of a file: consecutive row groups of at most `rows_per_shard` rows
    in total; a larger row group is split by rows."""
    shards: list[tuple[int, int]] = []
    start = pending = 0
    for rows in groups:
        if pending and pending + rows > rows_per_shard:
            shards.append((start, pending))
            start, pending = start + pending, 0
        pending += rows
        while pending > rows_per_shard:
            shards.append((start, rows_per_shard))
            start, pending = start + rows_per_shard, pending - rows_per_shard
        # the rest of a split row group is a separate shard: other row groups are read once
        if rows > rows_per_shard and pending:
            shards.append((start, pending))
            start, pending = start + pending, 0
    return [*shards, (start, pending)] if pending else shards


def shards(found: pa.Table, all_footers: list[Footer], rows_per_shard: int) -> pa.Table:
    """The manifest of shards (schema.SHARDS) of Parquet files."""
    listed: list[tuple[str, int, int, int]] = []
    for path, one in zip(found["path"].to_pylist(), all_footers, strict=True):
        ends, sizes = np.cumsum((0, *one.rows)), np.cumsum((0, *one.sizes))
        for start, rows in split_row_groups(one.rows, rows_per_shard):
            low, high = np.interp((start, start + rows), ends, sizes)
            listed.append((path, start, rows, round(high - low)))
    arrays = [pa.array([row[i] for row in listed], schema.SHARDS.field(i + 1).type) for i in range(4)]
    return pa.table([pa.array(range(len(listed)), pa.int32()), *arrays], schema=schema.SHARDS)


def keys(location: Location, path: str, name: str, rows: range) -> pa.Array:
    """The keys of some rows of a file, as text."""
    column = _column(location, path, name, rows)[0]
    return _keys(column, path, np.arange(rows.start, rows.stop))[0].combine_chunks()


def _keys(
    column: pa.Array | pa.ChunkedArray, path: str, rows: np.ndarray
) -> tuple[pa.Array | pa.ChunkedArray, pa.Array | pa.ChunkedArray]:
    """Keys as text, and which of them are too long to be names: these rows go by their numbers, without an image."""
    text = cols.as_text(column)
    long = cols.too_long(text)
    return (pc.if_else(long, positional(path, rows), text) if pc.any(long).as_py() else text), long


def labels(location: Location, path: str, columns: Columns, rows: range | None = None) -> pa.Array:
    """The labels of a file or of some of its rows, or of the folders above it, as class names; those that the file itself gives to its numbers come
    first.
    """
    assert columns.label is not None
    column, own = _column(location, path, columns.label, rows)
    return cols.labels(column.combine_chunks(), cols.class_names(own, columns.label) or columns.names, path)


def _column(location: Location, path: str, name: str, rows: range | None) -> tuple[pa.ChunkedArray, pa.Schema]:
    """One column of a file, or some of its rows, and its schema; row groups without any of the rows are not read."""
    try:
        with pq.ParquetFile(location.fs.open_input_file(location.path(path))) as file:
            own = file.schema_arrow
            if name not in own.names:
                number = file.metadata.num_rows if rows is None else len(rows)
                return pa.chunked_array([constant(cols.partitions(path)[name], number)]), own
            if rows is None:
                return file.read(columns=[name], use_threads=False).column(name), own
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            bounds = np.concatenate([[0], np.cumsum(sizes)])
            first, last = np.searchsorted(bounds, [rows.start, rows.stop - 1], side="right") - 1
            read = file.read_row_groups(list(range(first, last + 1)), columns=[name], use_threads=False).column(name)
            return read.slice(rows.start - bounds[first], len(rows)), own
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def constant(value: str | None, rows: int) -> pa.Array:
    """The same text in every row."""
    return pa.repeat(pa.scalar(value, pa.string()), rows)


class RowReader:
    """Reads row ranges of Parquet files.

    The last file stays open at its position. A row group larger than a shard has to be decoded from its beginning; a
    worker that reads the shards of a file in order thus decodes each row group once, not once per shard.
    """

    def __init__(self, location: Location, columns: Columns) -> None:
        self.location, self.columns = location, columns
        self._last: _Open | None = None

    def read(
        self, path: str, start: int, rows: int, keep: np.ndarray | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Record batches of schema.IMAGES of the rows start..start+rows, `row` counted from `start`. `keep`: sorted rows
        (default: all).

        Raises ValueError naming the file when it cannot be read or has fewer rows than when it was listed.
        """
        wanted = start + (np.arange(rows) if keep is None else np.asarray(keep, np.int64))
        try:
            file = self._open(path)
            if file.ends[-1] < start + rows:
                raise ValueError(
                    f"{path}: has {file.ends[-1]} rows, fewer than when it was listed. List the collection again."
                )
            for group in np.unique(np.searchsorted(file.ends, wanted, "right") - 1).tolist():
                low, high = np.searchsorted(wanted, file.ends[group : group + 2])
                for row, batch in file.read(group, wanted[low:high] - file.ends[group], batch_rows):
                    yield self._images(batch, row + file.ends[group] - start, start, file)
            self._last = file
        except (OSError, pa.ArrowException) as error:
            if storage.is_transient(error):
                raise
            raise _unreadable(path, error) from None

    def _open(self, path: str) -> "_Open":
        last, self._last = self._last, None  # taken, not shared: a concurrent thread opens its own
        return last if last is not None and last.path == path else _Open(self.location, path, self.columns)

    def _images(self, batch: pa.RecordBatch, rows: np.ndarray, start: int, file: "_Open") -> pa.RecordBatch:
        """A batch of the file as schema.IMAGES; `rows`: row numbers counted from `start`."""
        columns, path, names = self.columns, file.path, file.class_names
        image = cols.images(batch.column(columns.image))
        if columns.key is None:
            keys = positional(path, rows + start)
        else:
            keys, long = _keys(batch.column(columns.key), path, rows + start)
            image = pc.if_else(long, None, image) if pc.any(long).as_py() else image
        labels = pa.nulls(len(rows), pa.string())
        if columns.label in batch.schema.names:
            labels = cols.labels(batch.column(columns.label), names or columns.names, path)
        elif columns.label is not None:
            labels = cols.labels(constant(cols.partitions(path)[columns.label], len(rows)), names, path)
        return pa.record_batch([pa.array(rows, pa.int32()), keys, image, labels], schema=schema.IMAGES)


class _Open:
    """One open file, and the stream of the last row group."""

    def __init__(self, location: Location, path: str, columns: Columns) -> None:
        self.path = path
        buffer = LOCAL_BUFFER if isinstance(location.fs, pafs.LocalFileSystem) else READ_BUFFER
        self.file = pq.ParquetFile(location.fs.open_input_file(location.path(path)), buffer_size=buffer)
        meta = self.file.metadata
        self.ends = np.cumsum([0, *(meta.row_group(index).num_rows for index in range(meta.num_row_groups))])
        self.leaves = [cols.leaf(self.file.schema_arrow, columns.image or "")]
        own = self.file.schema_arrow.names
        self.class_names = cols.class_names(self.file.schema_arrow, columns.label)
        self.leaves += dict.fromkeys(name for name in (columns.key, columns.label) if name is not None and name in own)
        self.stream: Iterator[pa.RecordBatch] = iter(())
        self.streams: tuple[int, int] | None = None
        self.batch: pa.RecordBatch | None = None
        self.first = 0

    def read(self, group: int, wanted: np.ndarray, batch_rows: int) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """The `wanted` rows (sorted, counted from the start of the row group) as (row numbers, batch); consecutive rows are
        slices, not copies."""
        self._seek(group, int(wanted[0]), batch_rows)
        while len(wanted):
            if self.batch is None or wanted[0] >= self.first + len(self.batch):
                self.first += len(self.batch) if self.batch is not None else 0
                self.batch = next(self.stream)
                continue
            here = int(np.searchsorted(wanted, self.first + len(self.batch)))
            rows, wanted = wanted[:here], wanted[here:]
            inside = rows - self.first
            run = int(inside[-1]) - int(inside[0]) + 1 == here
            yield rows, self.batch.slice(int(inside[0]), here) if run else self.batch.take(pa.array(inside))

    def _seek(self, group: int, row: int, batch_rows: int) -> None:
        """Continue the open stream if `row` is in or after its last batch, else open another."""
        if self.streams == (group, batch_rows) and row >= self.first:
            return
        self.stream = self.file.iter_batches(batch_rows, row_groups=[group], columns=self.leaves, use_threads=False)
        self.streams, self.batch, self.first = (group, batch_rows), None, 0


def positional(path: str, rows: np.ndarray) -> pa.Array:
    """Keys of rows without a key column: `<relative path>:<row in file>`."""
    return pc.binary_join_element_wise(path, pa.array(rows).cast(pa.string()), ":")


def _unreadable(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: not a readable Parquet file ({error}). Restore it, or remove it and list the collection again."
    )
