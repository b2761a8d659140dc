"""Which columns of a table are the image, its key and its label, and what their values mean."""

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
    """The columns chosen in a collection of tables; `names` are the class names of integer labels, where the file knows
    them."""

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
    """Columns of a table: those asked for, else those with a usual name and type.

    Raises ValueError with the columns found when one that was asked for is not there, has the wrong type, or no image
    column can be told.
    """
    for setting, name in (("image_column", image), ("key_column", key), ("label_column", label)):
        if name is not None and name not in schema.names:
            raise ValueError(f"{where}: data.{setting} is {name!r}, but the columns are {_shown(schema)}")
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
            f"{where}: data.image_column {image!r} is {kind}; "
            "it must be encoded bytes, a struct with `bytes`, or a path or URI"
        )
    raise ValueError(
        f"{where}: no column of encoded images or URIs among {_shown(schema)}; name it in data.image_column"
    )


def leaf(schema: pa.Schema, image: str) -> str:
    """The Parquet column path that holds the bytes of the image column: a struct's other fields are not read."""
    return f"{image}.bytes" if pt.is_struct(schema.field(image).type) else image


def images(column: pa.Array) -> pa.Array:
    """Encoded bytes as pa.binary(), from a binary column or a struct with `bytes`; no copy where the type is binary
    already."""
    if pt.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    return column if pt.is_binary(column.type) else column.cast(pa.binary())


def labels(column: pa.Array, names: tuple[str, ...] | None, where: str) -> pa.Array:
    """Class names as strings; integers are looked up in `names` (negative: no label), or written out when there are
    none."""
    if pt.is_dictionary(column.type):
        column = column.dictionary_decode()
    if names is None or not pt.is_integer(column.type):
        return column.cast(pa.string())
    index = column.cast(pa.int64())
    largest = pc.max(index).as_py()
    if largest is not None and largest >= len(names):
        raise ValueError(f"{where}: label {largest} of a column that declares {len(names)} class names")
    return pa.array(names, pa.string()).take(pc.if_else(pc.less(index, 0), None, index))


def ordered(names: Iterable[str]) -> list[str]:
    """Class names sorted: by value when all are whole numbers, else by text."""
    found = list(names)
    return (
        sorted(found, key=int) if found and all(name.removeprefix("-").isdecimal() for name in found) else sorted(found)
    )


def _class_names(schema: pa.Schema, label: str | None) -> tuple[str, ...] | None:
    """Class names of a Hugging Face `ClassLabel`, from the schema's metadata. Raises ValueError for a label column of
    no use."""
    if label is None:
        return None
    kind = schema.field(label).type
    if not _is_label(kind):
        raise ValueError(f"label column {label!r} is {kind}; labels are strings or integers, one an image")
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError):
        return None


def _named(schema: pa.Schema, usual: tuple[str, ...], fits: Any) -> str | None:
    by_lower = {name.lower(): name for name in reversed(schema.names)}
    return next(
        (by_lower[name] for name in usual if name in by_lower and fits(schema.field(by_lower[name]).type)), None
    )


def _only(schema: pa.Schema, fits: Any) -> str | None:
    """The one column that fits, whatever its name."""
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
    return _is_string(value) or pt.is_integer(value) or pt.is_boolean(value)


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
