"""Tables of URIs: CSV or Parquet files that refer to images stored elsewhere."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from engine.ground import storage
from engine.ground.uri import ALIASES, SCHEMES
from engine.images import columns as cols
from engine.images.columns import Columns
from engine.images.file_listing import Location
from engine.images.loose import ITEMS
from engine.images.parquet import constant

EXTENSIONS = (".csv", ".tsv")


def csv_schema(location: Location, path: str) -> pa.Schema:
    """Schema of a CSV (or tab-separated) file, from its header and first rows. Raises ValueError when it cannot be read."""
    try:
        with location.fs.open_input_stream(location.path(path)) as stream:
            return pcsv.open_csv(stream, parse_options=_dialect(path)).schema
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: not a readable CSV file with a header ({error})") from None


def items(location: Location, path: str, columns: Columns) -> pa.Table:
    """ITEMS of one table. Without a key column, the key is the URI as written; a relative URI is relative to the folder
    of the table.

    Raises ValueError naming the row of an empty URI.
    """
    used = list(dict.fromkeys(name for name in (columns.uri, columns.key, columns.label) if name is not None))
    read = _read_csv if path.lower().endswith(EXTENSIONS) else _read_parquet
    table = read(location, path, used)
    uri = cols.as_text(table[columns.uri])
    empty = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(uri), ""), True)
    if (row := pc.index(empty, True).as_py()) >= 0:
        raise ValueError(f"{path}: row {row} has no {columns.uri}. Fill it in or remove the row.")
    folder = path.rpartition("/")[0]
    relative = pc.invert(pc.match_substring_regex(uri, r"^(/|~/|(?i:file):/|[A-Za-z][A-Za-z0-9+.-]*://)"))
    at = pc.if_else(relative, pc.binary_join_element_wise(folder, uri, "/"), uri) if folder else uri
    key = uri if columns.key is None else cols.as_text(table[columns.key])
    label = pa.nulls(len(uri), pa.string())
    if columns.label is not None:
        names = cols.class_names(table.schema, columns.label) or columns.names
        label = cols.labels(table[columns.label].combine_chunks(), names, path)
    return pa.table([key, at, pa.nulls(len(uri), pa.int64()), label], schema=ITEMS)


def unusable(table: pa.Table) -> list[str]:
    """Sentences on URIs of ITEMS that cannot be opened: of an unknown scheme, or with a character that no path has."""
    scheme = pc.struct_field(pc.extract_regex(table["path"], r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"), "scheme")
    scheme = pc.fill_null(scheme, "")
    known = pa.array([*SCHEMES, *ALIASES])
    unknown = pc.invert(pc.is_in(pc.utf8_lower(scheme), value_set=known))
    found = []
    for why, mask in (("of an unknown scheme", unknown), ("with a control character", _has_control(table["path"]))):
        if bad := table.filter(mask)["path"].to_pylist():
            found.append(f"{len(bad):,} URIs {why} cannot be read, first {bad[0]!r}")
    return found


def _has_control(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.match_substring_regex(column, r"[\x00-\x1f\x7f]")


def _dialect(path: str) -> pcsv.ParseOptions:
    return pcsv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")


def _read_csv(location: Location, path: str, names: list[str]) -> pa.Table:
    """Columns of a CSV as text, so that a key or label such as 007 is kept."""
    convert = pcsv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    try:
        with location.fs.open_input_stream(location.path(path)) as stream:
            return pcsv.read_csv(stream, parse_options=_dialect(path), convert_options=convert)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{path}: columns {', '.join(names)} cannot be read ({error})") from None


def read_text(location: Location, path: str) -> pa.Table:
    """All columns of a CSV or JSON lines file as text. Raises ValueError when it cannot be read."""
    if not path.lower().endswith(".jsonl"):
        return _read_csv(location, path, csv_schema(location, path).names)
    return _read_json_lines(storage.get(location.fs, location.path(path)).decode(), path)


def _read_json_lines(text: str, path: str) -> pa.Table:
    """A table of text from JSON objects, one per line; values that are not text or a whole number are null. Raises ValueError naming the line."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is not a JSON object ({error}). Correct it.") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object. Correct it.")
        if row:
            rows.append({name: str(value) for name, value in row.items() if isinstance(value, str | int)})
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: pa.array([row.get(name) for row in rows], pa.string()) for name in names})


def _read_parquet(location: Location, path: str, names: list[str]) -> pa.Table:
    try:
        with location.fs.open_input_file(location.path(path)) as file:
            parts = {name: value for name, value in cols.partitions(path).items() if name in names}
            own = [name for name in names if name not in parts or name in pq.read_schema(file).names]
            table = pq.read_table(file, columns=own)
            for name in [name for name in names if name not in own]:
                table = table.append_column(name, constant(parts[name], table.num_rows))
            return table
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: columns {', '.join(names)} cannot be read ({error})") from None
