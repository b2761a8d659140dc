"""Labels from a separate table, by the key of the image: labels of reviewers, or known true labels."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from engine.ground import storage
from engine.ground.encodings import compose, encoding_of, find_undecodable
from engine.labels.cells import DEFUSED, plain, plain_column
from engine.labels.classes import ClassList

ABSENT, EMPTY = -2, -1
"""Index of an image that is not in the table, and of one with an empty label."""


def read_table(uri: str, text: tuple[str, ...] = ()) -> pa.Table:
    """A CSV (.csv), Arrow IPC (.arrow, .feather) or Parquet file. The CSV columns named in `text` are read as text, so that 007 stays 007.
    A CSV that was written for spreadsheets (`labels.cells`) is turned back.

    Raises ValueError when the file cannot be read.
    """
    fs, path = storage.resolve(uri)
    try:
        with fs.open_input_file(path) as file:
            if path.lower().endswith(".csv"):
                types = {name: pa.string() for name in text}
                convert = pcsv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
                encoding = encoding_of(file.read(4))
                file.seek(0)
                reading = pcsv.ReadOptions(encoding="utf8" if encoding.startswith("utf-8") else encoding)
                table = pcsv.read_csv(file, read_options=reading, convert_options=convert)
                if table.column_names[-1] != DEFUSED or set(table[DEFUSED].to_pylist()) - {"'"}:
                    return table
                table = table.drop_columns([DEFUSED])
                columns = [plain_column(c) if pa.types.is_string(c.type) else c for c in table.columns]
                return pa.table(columns, names=[plain(name) for name in table.column_names])
            if path.lower().endswith((".arrow", ".feather")):
                return pa.ipc.open_file(file).read_all()
            return pq.read_table(file)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        if path.lower().endswith(".csv") and storage.exists(fs, path) and (why := find_undecodable(fs, path)):
            raise ValueError(why) from None
        raise ValueError(f"{uri}: not a readable CSV, Arrow or Parquet file ({error})") from None


def find_positions(keys: pa.Array | pa.ChunkedArray, table_keys: pa.ChunkedArray, uri: str) -> npt.NDArray[np.int64]:
    """Positions int64 (n,) in `keys` of the n keys of a table.

    Raises ValueError naming keys that occur twice in the table, or that are not in `keys`.
    """
    distinct = pc.value_counts(table_keys)
    if len(distinct) < len(table_keys):
        repeated = next(one["values"] for one in distinct.to_pylist() if one["counts"] > 1)
        raise ValueError(f"{uri}: key {repeated!r} is in more than one row. Remove the repeated rows.")
    found = pc.index_in(table_keys, value_set=keys)
    if found.null_count:  # the same names from another system may have accents in another form
        found = pc.coalesce(found, pc.index_in(compose(table_keys), value_set=compose(keys)))
    if found.null_count:
        unknown = table_keys.filter(pc.is_null(found)).slice(0, 5).to_pylist()
        raise ValueError(
            f"{uri}: {found.null_count} keys match no image (first: {', '.join(map(str, unknown))}). Use the keys that jobs.export writes."
        )
    return np.asarray(found).astype(np.int64)


def labels_by_key(uri: str, keys: pa.Array | pa.ChunkedArray, classes: ClassList) -> npt.NDArray[np.int64]:
    """Class indices int64 (n,) of the n images `keys`, from a table with the columns `key` and `label`; ABSENT or EMPTY without a label.

    Raises ValueError for a table without these columns, a key that is not in `keys`, and a class that is not in `classes`.
    """
    table = read_table(uri, ("key", "label"))
    if not {"key", "label"} <= set(table.column_names):
        raise ValueError(f"{uri}: columns {', '.join(table.column_names)}; the columns key and label are required")
    labels = np.full(len(keys), ABSENT, np.int64)
    labels[find_positions(keys, table["key"].cast(pa.string()), uri)] = classes.indices(
        table["label"].cast(pa.string()), uri
    )
    return labels
