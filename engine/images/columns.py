"""Columns of a table that hold the image, its key and its label, and conversion of their values."""

import codecs
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from engine.ground.encodings import compose
from engine.images.formats import EXTENSIONS, MAX_NAME_BYTES

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "image_bytes", "bytes", "content", "data")
URI_NAMES = (
    "uri",
    "url",
    "path",
    "file",
    "image",
    "image_uri",
    "image_url",
    "image_path",
    "file_path",
    "filename",
    "file_name",
    "filepath",
)
KEY_NAMES = ("key", "__key__")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
LABEL_NAMES = ("label", "class", "class_name", "cls", "category", "labels", "target")


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a collection of tables; `names`: class names of integer labels, if the file has them."""

    image: str | None = None
    uri: str | None = None
    key: str | None = None
    label: str | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, tree: dict[str, Any]) -> Self:
        return cls(**{**tree, "names": None if tree["names"] is None else tuple(tree["names"])})

    def dump(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Labelling:
    """How files that are not tables say what they are: endings of images, the field of a label, the encoding of text (default: UTF-8)."""

    extensions: tuple[str, ...] = EXTENSIONS
    field: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            raise ValueError(f"data.encoding={self.encoding!r} is no known encoding. Try latin-1 or cp1252.") from None


def choose(schema: pa.Schema, image: str | None, key: str | None, label: str | None, where: str) -> Columns:
    """Columns of a table: those given, else those with a common name and type.

    Raises ValueError listing the columns when a given one is missing or has the wrong type, or when no image column can
    be determined.
    """
    for setting, name in (("image_column", image), ("key_column", key), ("label_column", label)):
        if name is not None and name not in schema.names:
            raise ValueError(f"{where}: data.{setting}={name!r} is not a column. Columns: {_shown(schema)}.")
    label = label or _named(schema, LABEL_NAMES, _is_label, where)
    if label is not None and not fits("label", kind := _type(schema, label, where)):
        raise ValueError(
            f"{where}: label column {label!r} is of type {kind}. Labels are names or whole numbers, one per image."
        )
    names = class_names(schema, label)
    key = key or _named(schema, KEY_NAMES, lambda kind: fits("key", kind), where)
    encoded = image or _named(schema, IMAGE_NAMES, _is_encoded, where) or _only(schema, _is_encoded)
    encoded = encoded or _named(schema, IMAGE_NAMES, lambda kind: fits("image", kind) and not _is_vague(kind), where)
    if encoded is not None and fits("image", _type(schema, encoded, where)):
        return Columns(image=encoded, key=key, label=label, names=names)
    uri = image or _named(schema, URI_NAMES, lambda kind: fits("uri", kind), where)
    if uri is not None and fits("uri", _type(schema, uri, where)):
        return Columns(uri=uri, key=key, label=label, names=names)
    if image is not None:
        raise ValueError(
            f"{where}: data.image_column={image!r} is of type {_type(schema, image, where)}. "
            "Encoded bytes, a struct with `bytes`, or a path or URI are required, one per row."
        )
    raise ValueError(f"{where}: no column of encoded images or URIs among {_shown(schema)}. Set data.image_column.")


def fits(role: str, kind: pa.DataType) -> bool:
    """Whether a column of this type can be the `image`, `uri`, `key` or `label` of some of the rows: parts of a table differ in letter."""
    value = kind.value_type if pt.is_dictionary(kind) else kind
    if pt.is_null(value):
        return role in ("image", "label")
    match role:
        case "image":
            empty = (
                pt.is_struct(value) and value.get_field_index("bytes") >= 0 and pt.is_null(value.field("bytes").type)
            )
            return empty or _is_encoded(value) or pt.is_fixed_size_binary(value)
        case "label":
            return _is_label(value) or pt.is_floating(value)
        case "key":
            return _is_string(value) or pt.is_integer(value)
    return _is_string(value)


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The first schema, with the types and class names of another one where the first says nothing: of an empty column, or of one that holds whole
    numbers as floats because some are missing."""
    first = schemas[0]
    for index, field in enumerate(first):
        if _is_vague(field.type):
            others = (one.field(field.name).type for one in schemas[1:] if one.names.count(field.name) == 1)
            if (kind := next((kind for kind in others if not _is_vague(kind)), None)) is not None:
                first = first.set(index, field.with_type(kind))
    named = next((one.metadata for one in schemas if b"huggingface" in (one.metadata or {})), first.metadata)
    return first.with_metadata(named)


def _is_vague(kind: pa.DataType) -> bool:
    return pt.is_null(kind) or pt.is_floating(kind) or (pt.is_struct(kind) and not _is_encoded(kind))


def check_part(schema: pa.Schema, columns: Columns, common: pa.Schema, path: str, first: str) -> None:
    """Raise ValueError unless a file has the columns of a collection, in types that are read alike."""
    for role in ("image", "uri", "key", "label"):
        if (name := getattr(columns, role)) is None:
            continue
        own, wanted = _type(schema, name, path) if name in schema.names else None, _type(common, name, first)
        if own is None or not fits(role, own) or pt.is_boolean(own) + pt.is_boolean(wanted) == 1 != pt.is_null(own):
            raise ValueError(
                f"{path}: has no column {name} that can be read as {wanted}, unlike {first}. Columns: {_shown(schema)}. "
                "List them as separate collections."
            )


def _type(schema: pa.Schema, name: str, where: str) -> pa.DataType:
    """The type of a column. Raises ValueError when several have the name."""
    if (count := schema.names.count(name)) > 1:
        raise ValueError(
            f"{where}: {count} columns are called {name!r}. Rename all but one. Columns: {_shown(schema)}."
        )
    return schema.field(name).type


def as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Keys or URIs as pa.string()."""
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string())


def partitions(path: str) -> dict[str, str | None]:
    """The values that the folders of a file spell, as Hive, Spark and pandas write them: `label=cat/part-0.parquet`."""
    pairs = [part.partition("=") for part in path.split("/")[:-1] if "=" in part]
    return {unquote(name): None if value == HIVE_NULL else unquote(value) for name, _, value in pairs}


def with_partitions(schema: pa.Schema, path: str) -> pa.Schema:
    """The schema of a file with its partitions as columns of text."""
    for name in partitions(path):
        if name not in schema.names:
            schema = schema.append(pa.field(name, pa.string()))
    return schema


def leaf(schema: pa.Schema, image: str) -> str:
    """The Parquet column path of the bytes of the image column: the other fields of a struct are not read."""
    return f"{image}.bytes" if pt.is_struct(schema.field(image).type) else image


def images(column: pa.Array) -> pa.Array:
    """Encoded bytes as pa.binary(), from a binary column or a struct with `bytes`; without a copy if it is pa.binary()."""
    if pt.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if pt.is_binary(column.type) else column.cast(pa.binary())


def labels(column: pa.Array, names: tuple[str, ...] | None, where: str) -> pa.Array:
    """Class names as strings; integers are looked up in `names` (negative: no label), or formatted if `names` is None.

    Floats are integers of a column with gaps, NaN a gap. Raises ValueError for other numbers.
    """
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pt.is_floating(column.type):
        column = _integers(column.cast(pa.float64()), where)
    if names is None or not pt.is_integer(column.type):
        text = column.cast(pa.string())
        return compose(pc.if_else(too_long(text), None, text))
    index = column.cast(pa.int64())
    largest = pc.max(index).as_py()
    if largest is not None and largest >= len(names):
        raise ValueError(f"{where}: label {largest}, but the column has only {len(names)} class names")
    return compose(pa.array(names, pa.string())).take(pc.if_else(pc.less(index, 0), None, index))


def too_long(text: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which texts cannot be names."""
    return pc.fill_null(pc.greater(pc.binary_length(text), MAX_NAME_BYTES), False)


def _integers(column: pa.Array, where: str) -> pa.Array:
    """Floats as int64, null where NaN. Raises ValueError for a number that is not whole."""
    column = pc.if_else(pc.is_nan(column), None, column)
    fractions = pc.filter(column, pc.not_equal(column, pc.floor(column)))
    if len(fractions):
        raise ValueError(f"{where}: label {fractions[0].as_py()}. Labels are names or whole numbers, one per image.")
    return column.cast(pa.int64())


def ordered(names: Iterable[str]) -> list[str]:
    """Sorted class names: numerically if all are integers, else alphabetically."""
    found = list(names)
    return (
        sorted(found, key=int) if found and all(name.removeprefix("-").isdecimal() for name in found) else sorted(found)
    )


def class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Class names of a Hugging Face `ClassLabel`, from the metadata of the schema."""
    if label is None or label not in schema.names:
        return None
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _named(schema: pa.Schema, common: tuple[str, ...], fits: Any, where: str) -> str | None:
    by_lower = {name.lower(): name for name in reversed(schema.names)}
    found = (by_lower[name] for name in common if name in by_lower)
    return next((name for name in found if fits(_type(schema, name, where))), None)


def _only(schema: pa.Schema, fits: Any) -> str | None:
    """The only column that fits, if there is exactly one."""
    fitting = [field.name for field in schema if fits(field.type)]
    return fitting[0] if len(fitting) == 1 else None


def _is_encoded(kind: pa.DataType) -> bool:
    if pt.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)


def _is_string(kind: pa.DataType) -> bool:
    return pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)


def _is_label(kind: pa.DataType) -> bool:
    value = kind.value_type if pt.is_dictionary(kind) else kind
    return _is_string(value) or pt.is_integer(value) or pt.is_boolean(value) or pt.is_floating(value)


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
