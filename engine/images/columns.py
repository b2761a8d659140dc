"""Columns of a table that hold the image, its key and its label, and conversion of their values."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

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


def choose(schema: pa.Schema, image: str | None, key: str | None, label: str | None, where: str) -> Columns:
    """Columns of a table: those given, else those with a common name and type.

    Raises ValueError listing the columns when a given one is missing or has the wrong type, or when no image column can
    be determined.
    """
    for setting, name in (("image_column", image), ("key_column", key), ("label_column", label)):
        if name is not None and name not in schema.names:
            raise ValueError(f"{where}: data.{setting}={name!r} is not a column. Columns: {_shown(schema)}.")
    label = label or _named(schema, LABEL_NAMES, _is_label)
    names = _class_names(schema, label)
    key = key or _named(schema, KEY_NAMES, lambda kind: _is_string(kind) or pt.is_integer(kind))
    encoded = image or _named(schema, IMAGE_NAMES, _is_encoded) or _only(schema, _is_encoded)
    if encoded is not None and _is_encoded(schema.field(encoded).type):
        return Columns(image=encoded, key=key, label=label, names=names)
    uri = image or _named(schema, URI_NAMES, _is_string)
    if uri is not None and _is_string(schema.field(uri).type):
        return Columns(uri=uri, key=key, label=label, names=names)
    if image is not None:
        kind = schema.field(image).type
        raise ValueError(
            f"{where}: data.image_column={image!r} is of type {kind}. "
            "Encoded bytes, a struct with `bytes`, or a path or URI are required."
        )
    raise ValueError(f"{where}: no column of encoded images or URIs among {_shown(schema)}. Set data.image_column.")


def leaf(schema: pa.Schema, image: str) -> str:
    """The Parquet column path of the bytes of the image column: the other fields of a struct are not read."""
    return f"{image}.bytes" if pt.is_struct(schema.field(image).type) else image


def images(column: pa.Array) -> pa.Array:
    """Encoded bytes as pa.binary(), from a binary column or a struct with `bytes`; without a copy if it is pa.binary()."""
    if pt.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
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
        return column.cast(pa.string())
    index = column.cast(pa.int64())
    largest = pc.max(index).as_py()
    if largest is not None and largest >= len(names):
        raise ValueError(f"{where}: label {largest}, but the column has only {len(names)} class names")
    return pa.array(names, pa.string()).take(pc.if_else(pc.less(index, 0), None, index))


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


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Class names of a Hugging Face `ClassLabel`, from the metadata of the schema. Raises ValueError for a label column of
    the wrong type."""
    if label is None:
        return None
    kind = schema.field(label).type
    if not _is_label(kind):
        raise ValueError(f"label column {label!r} is of type {kind}. Labels are names or whole numbers, one per image.")
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _named(schema: pa.Schema, common: tuple[str, ...], fits: Any) -> str | None:
    by_lower = {name.lower(): name for name in reversed(schema.names)}
    return next(
        (by_lower[name] for name in common if name in by_lower and fits(schema.field(by_lower[name]).type)), None
    )


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
