"""Tables of URIs: CSV or Parquet files that refer to images stored elsewhere."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from engine.ground import storage
from engine.ground.encodings import encoding_of, find_undecodable, read_text
from engine.ground.uri import ALIASES, SCHEMES
from engine.images import columns as cols
from engine.images.columns import Columns
from engine.images.file_listing import Location
from engine.images.loose import ITEMS
from engine.images.parquet import constant

EXTENSIONS = (".csv", ".tsv")
LIST = ".txt"
"""Ending of a file with a path or URI per line and no header."""


def csv_schema(location: Location, path: str, encoding: str | None = None) -> pa.Schema:
    """Schema of a CSV (or tab-separated) file, from its header and first rows. Raises ValueError when it cannot be read."""
    at = location.path(path)
    if path.lower().endswith(LIST):
        return pa.schema([("uri", pa.string())])
    try:
        options = _reading(location, path, encoding)
        with location.fs.open_input_stream(at) as stream:
            found = pcsv.open_csv(stream, read_options=options, parse_options=_dialect(path)).schema
            # a header in another encoding raises here; values in one are binary for Arrow, and named when they are read
            text = [field.with_type(pa.string()) if pa.types.is_binary(field.type) else field for field in found]
            return pa.schema([(field.name, field.type) for field in text])
    except (OSError, LookupError, ValueError, pa.ArrowException) as error:
        why = find_undecodable(location.fs, at, encoding) if storage.exists(location.fs, at) else None
        raise ValueError(why or f"{path}: not a readable CSV file with a header ({error})") from None


def check_label(schema: pa.Schema, columns: Columns, path: str) -> None:
    """Raise ValueError for labels with fractions in a CSV: its whole numbers are whole, whatever is missing."""
    if columns.label is not None and pa.types.is_floating(schema.field(columns.label).type):
        raise ValueError(f"{path}: label column {columns.label!r} holds numbers with fractions, which are no classes.")


def items(location: Location, path: str, columns: Columns, encoding: str | None = None) -> pa.Table:
    """ITEMS of one table. Without a key column, the key is the URI as written; a relative URI is relative to the folder
    of the table.

    Raises ValueError naming the row of an empty URI.
    """
    used = list(dict.fromkeys(name for name in (columns.uri, columns.key, columns.label) if name is not None))
    is_text = path.lower().endswith((*EXTENSIONS, LIST))
    table = _read_csv(location, path, used, encoding) if is_text else _read_parquet(location, path, used)
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


def _reading(location: Location, path: str, encoding: str | None) -> pcsv.ReadOptions:
    with location.fs.open_input_stream(location.path(path)) as stream:
        found = encoding_of(stream.read(4), encoding)
    return pcsv.ReadOptions(encoding="utf8" if found.startswith("utf-8") else found)


def _read_csv(location: Location, path: str, names: list[str], encoding: str | None = None) -> pa.Table:
    """Columns of a CSV as text, so that a key or label such as 007 is kept."""
    if path.lower().endswith(LIST):
        lines = read_text(location.fs, location.path(path), encoding).splitlines()
        return pa.table({"uri": pa.array([line.strip() for line in lines if line.strip()], pa.string())})
    convert = pcsv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    try:
        options = _reading(location, path, encoding)
        with location.fs.open_input_stream(location.path(path)) as stream:
            return pcsv.read_csv(stream, read_options=options, parse_options=_dialect(path), convert_options=convert)
    except (OSError, LookupError, ValueError, pa.ArrowException) as error:
        if why := find_undecodable(location.fs, location.path(path), encoding):
            raise ValueError(why) from None
        raise ValueError(f"{path}: columns {', '.join(names)} cannot be read ({error})") from None


def read_columns(location: Location, path: str, encoding: str | None) -> pa.Table:
    """All columns of a CSV or JSON lines file as text. Raises ValueError when it cannot be read."""
    if not path.lower().endswith(".jsonl"):
        return _read_csv(location, path, csv_schema(location, path, encoding).names, encoding)
    return _read_json_lines(read_text(location.fs, location.path(path), encoding), path)


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
