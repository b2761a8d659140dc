"""Rows of evaluations, read back for the comparisons of the page."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.ground.steps import Output, Store, read_tables
from engine.metrics.paired import PairedTest, mcnemar
from engine.report.page.source import GenerationRecord, RunRecord, bytes_of
from engine.tasks.task import shared_rows

MOST_BYTES = 256 * 2**20
"""Size of an evaluation's rows up to which the page reads them."""
COLUMNS = {"shard", "row", "truth", "predicted", "confidence"}


def rows_of(output: Output, store: Store) -> pa.Table | None:
    """The rows of an evaluation with one class per image; None for another task's, and for rows too large for one process."""
    if bytes_of(output, store.fs) > MOST_BYTES:
        return None
    table = pa.concat_tables(table for _, table in read_tables(output, store.fs))
    return table if set(table.column_names) >= COLUMNS else None


def is_right(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows (N,) name the true class."""
    right: npt.NDArray[np.bool_] = rows["truth"].to_numpy() == rows["predicted"].to_numpy()
    return right


def compared(record: RunRecord, first: GenerationRecord, second: GenerationRecord, on: str) -> PairedTest | None:
    """The second model against the first on the images of a set that both predicted; None where that cannot be told from the store."""
    outputs = [one.evaluations.get(on) for one in (first, second)]
    rows = [rows_of(output, record.store) if output is not None else None for output in outputs]
    if rows[0] is None or rows[1] is None:
        return None
    before, after = shared_rows(rows[0], rows[1])
    return mcnemar(is_right(before), is_right(after))
