"""Labels that stand in a table of their own, by the image's key: a person's verdicts, or a truth that is known."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from engine.ground import storage
from engine.labels.cells import plain, plain_column
from engine.labels.classes import ClassList

ABSENT, EMPTY = -2, -1
"""What stands for an image that the table does not have, and for one whose label is empty there."""


def read_table(uri: str, text: tuple[str, ...] = ()) -> pa.Table:
    """A CSV (by its ending), Arrow IPC file (.arrow, .feather) or Parquet file; the CSV columns called `text` stay text, 007 and all.

    Raises ValueError when it cannot be read.
    """
    fs, path = storage.resolve(uri)
    try:
        with fs.open_input_file(path) as file:
            if path.lower().endswith(".csv"):
                types = {name: pa.string() for name in text}
                convert = pcsv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
                table = pcsv.read_csv(file, convert_options=convert)
                columns = [plain_column(c) if pa.types.is_string(c.type) else c for c in table.columns]
                return pa.table(columns, names=[plain(name) for name in table.column_names])
            if path.lower().endswith((".arrow", ".feather")):
                return pa.ipc.open_file(file).read_all()
            return pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{uri}: not a readable CSV, Arrow or Parquet file ({error})") from None


def places_of(keys: pa.Array | pa.ChunkedArray, table_keys: pa.ChunkedArray, uri: str) -> npt.NDArray[np.int64]:
    """For each of the table's keys the place of the image that has it among `keys`.

    Raises ValueError naming keys that stand in the table twice, or that no image has.
    """
    distinct = pc.value_counts(table_keys)
    if len(distinct) < len(table_keys):
        twice = next(one["values"] for one in distinct.to_pylist() if one["counts"] > 1)
        raise ValueError(f"{uri}: the key {twice!r} stands in more than one row; a key names one image")
    found = pc.index_in(table_keys, value_set=keys)
    if found.null_count:
        strangers = table_keys.filter(pc.is_null(found)).slice(0, 5).to_pylist()
        raise ValueError(
            f"{uri}: {found.null_count} keys name no image, first {strangers}; keys are those of jobs.export"
        )
    return np.asarray(found).astype(np.int64)


def labels_by_key(uri: str, keys: pa.Array | pa.ChunkedArray, classes: ClassList) -> npt.NDArray[np.int64]:
    """Class index of each of the images called `keys` from a table with the columns `key` and `label`; ABSENT or EMPTY where there is none.

    Raises ValueError for a table without those columns, a key that is not among `keys`, and a class that is not in the manifest.
    """
    table = read_table(uri, ("key", "label"))
    if not {"key", "label"} <= set(table.column_names):
        raise ValueError(f"{uri}: its columns are {', '.join(table.column_names)}; it needs key and label")
    labels = np.full(len(keys), ABSENT, np.int64)
    labels[places_of(keys, table["key"].cast(pa.string()), uri)] = classes.indices(
        table["label"].cast(pa.string()), uri
    )
    return labels
