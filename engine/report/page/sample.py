"""Stored tables in pieces: a bounded number of parts, spread evenly, read row group by row group. No table is ever whole in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.ground import storage
from engine.ground.steps import Output, Store

MOST_PARTS = 64
MOST_ROWS = 1 << 24
"""Rows that one look at a table reads, about: parts of a selection may have millions."""
BATCH_ROWS = 1 << 17


@dataclass(frozen=True)
class PartsSample:
    """Names of some parts of a step, in unit order, and how many parts and rows it has in all."""

    folder: str
    units: tuple[int, ...]
    names: tuple[str, ...]
    total: int
    rows: int
    rows_sampled: int

    @property
    def is_whole(self) -> bool:
        return len(self.names) == self.total

    @property
    def note(self) -> str:
        """What the sample is of; empty where it is everything."""
        if self.is_whole:
            return ""
        return f"From {len(self.names)} of {self.total:,} parts, spread evenly ({self.rows_sampled:,} of {self.rows:,} rows)."


def sample_parts(output: Output, store: Store, most: int = MOST_PARTS) -> PartsSample:
    """At most `most` parts of a finished step, and of about MOST_ROWS rows in all, spread evenly over its units."""
    path = f"{output.folder}/parts.parquet"
    table = pq.read_table(path, filesystem=store.fs, columns=["unit", "name", "rows"]).sort_by("unit")
    table = table.filter(pa.array(table["rows"].to_numpy() > 0))
    total, rows = table.num_rows, int(table["rows"].to_numpy().sum())
    most = max(1, min(most, MOST_ROWS * total // max(1, rows)))
    if total > most:
        table = table.take(pa.array(np.linspace(0, total - 1, most).astype(np.int64)))
    return PartsSample(
        output.folder,
        tuple(table["unit"].to_pylist()),
        tuple(table["name"].to_pylist()),
        total,
        rows,
        int(table["rows"].to_numpy().sum()),
    )


def batches(sample: PartsSample, fs: storage.FileSystem, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of the sampled parts, at most BATCH_ROWS at a time, with the schema's metadata."""
    for name in sample.names:
        with fs.open_input_file(f"{sample.folder}/parts/{name}") as source:
            file = pq.ParquetFile(source)
            metadata = file.schema_arrow.metadata
            for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(metadata)
