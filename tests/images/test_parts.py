"""Parts of a Parquet collection that differ in letter are read alike; those that cannot be are named with their columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.images.sources import list_images
from engine.settings.data import SourceSettings

from .making import everything, jpeg, manifest

BYTES = [jpeg(0), jpeg(1)]
FIXED = pa.binary(len(BYTES[0]))
STRUCT = [{"bytes": data, "path": "x"} for data in BYTES]
NO_STRUCT = [{"bytes": None, "path": "x"}] * 2
TEXT = ["1", "2"]


def parts(folder: Path, *tables: pa.Table) -> Path:
    folder.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet")
    return folder


@pytest.mark.parametrize(
    "other",
    [
        pa.array(BYTES, pa.large_binary()),
        pa.array(BYTES, pa.binary_view()),
        pa.array(BYTES).dictionary_encode(),
        pa.array(STRUCT),
        pa.array([BYTES[0]] * 2, FIXED),
        pa.nulls(2),
        pa.array(NO_STRUCT),
    ],
    ids=lambda array: str(array.type),
)
@pytest.mark.parametrize("first", [0, 1])
def test_images(tmp_path: Path, other: pa.Array, first: int) -> None:
    tables = [pa.table({"image": BYTES}), pa.table({"image": other})]
    made = manifest(parts(tmp_path / "t", tables[first], tables[1 - first]), tmp_path / "store")
    values = [value["bytes"] if isinstance(value, dict) else value for value in other.to_pylist()]
    both = [BYTES, values]
    assert everything(made)["image"].to_pylist() == both[first] + both[1 - first]


@pytest.mark.parametrize(
    "other",
    [
        pa.array(TEXT, pa.large_string()),
        pa.array(TEXT).dictionary_encode(),
        pa.array([1, 2]),
        pa.array([1, 2], pa.int8()),
        pa.array([1, None], pa.float64()),
        pa.nulls(2),
    ],
    ids=lambda array: str(array.type),
)
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("column", ["image", "uri"])
def test_labels(tmp_path: Path, other: pa.Array, first: int, column: str) -> None:
    places = (
        [BYTES, BYTES] if column == "image" else [["a.jpg", "b.jpg"], pa.array(["c.jpg", "d.jpg"]).dictionary_encode()]
    )
    tables = [pa.table({column: places[0], "label": TEXT}), pa.table({column: places[1], "label": other})]
    made = manifest(parts(tmp_path / "t", tables[first], tables[1 - first]), tmp_path / "store")
    values = [None if value is None else str(int(value)) for value in other.to_pylist()]
    both: list[list[str | None]] = [[*TEXT], values]
    assert made.labels()["label"].to_pylist() == both[first] + both[1 - first]
    assert everything(made)["label"].to_pylist() == both[first] + both[1 - first]
    assert sum(made.label_counts.values()) == 4 - values.count(None)


def test_keys(tmp_path: Path) -> None:
    keys: list[Any] = [TEXT, [3, 4], pa.array(["5", "6"]).dictionary_encode(), pa.array(["7", "8"], pa.large_string())]
    tables = [pa.table({"image": BYTES, "key": key}) for key in keys]
    made = manifest(parts(tmp_path / "t", *tables), tmp_path / "store")
    assert everything(made)["key"].to_pylist() == [*"12345678"] == made.keys()["key"].to_pylist()


def named(names: list[str] | str) -> pa.Table:
    text = names if isinstance(names, str) else json.dumps({"info": {"features": {"label": {"names": names}}}})
    return pa.table({"image": BYTES, "label": [0, 1]}).replace_schema_metadata({"huggingface": text})


def test_class_numbers_mean_what_their_own_file_says(tmp_path: Path) -> None:
    plain = pa.table({"image": BYTES, "label": [0, 1]})
    made = manifest(parts(tmp_path / "t", plain, named(["cat", "dog"]), named(["dog", "cat"])), tmp_path / "store")
    expected = ["cat", "dog", "cat", "dog", "dog", "cat"]
    assert made.labels()["label"].to_pylist() == expected == everything(made)["label"].to_pylist()
    assert made.label_counts == {"cat": 3, "dog": 3}


def test_metadata_that_is_no_json_is_no_class_names(tmp_path: Path) -> None:
    assert list_images(str(parts(tmp_path / "t", named("[" * 100_000)))).label_counts == {"0": 1, "1": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table([BYTES, BYTES], names=["image", "image"]), "0.parquet: 2 columns are called 'image'. Rename all but"),
        (pa.table([BYTES, TEXT, TEXT], names=["image", "label", "label"]), "2 columns are called 'label'"),
        (pa.table({"images": [[data] for data in BYTES]}), r"images \(list<element: binary>\). Set data.image_column"),
        (pa.table({"a": [{"image": one} for one in STRUCT]}), r"among a \(struct<image: struct<bytes: binary"),
        (pa.table({"image": BYTES, "label": [0.5, 1.5], "x": TEXT}), "Labels are names or whole numbers"),
    ],
)
def test_columns_that_cannot_be_read_are_named(tmp_path: Path, table: pa.Table, message: str) -> None:
    folder = parts(tmp_path / "t", table)
    with pytest.raises(ValueError, match=message):
        list_images(str(folder), SourceSettings(label_column="label" if "label" in table.column_names else None))


def test_parts_of_another_kind_are_named(tmp_path: Path) -> None:
    for number, other in enumerate((pa.table({"image": BYTES}), pa.table({"image": BYTES, "label": [True, False]}))):
        folder = parts(tmp_path / str(number), pa.table({"image": BYTES, "label": TEXT}), other)
        with pytest.raises(ValueError, match=r"1.parquet: has no column label that can be read as string.*Columns: im"):
            list_images(str(folder))


def test_fractions_in_a_csv_are_no_classes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri,price\na.jpg,0.5\nb.jpg,\n")
    with pytest.raises(ValueError, match=r"t\.csv: label column 'price' holds numbers with fractions"):
        list_images(str(tmp_path), SourceSettings(label_column="price"))
    (tmp_path / "t.csv").write_text("uri,price\na.jpg,5\nb.jpg,\n")
    assert list_images(str(tmp_path), SourceSettings(label_column="price")).label_counts == {"5": 1}
