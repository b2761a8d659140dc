"""Labels by key: values are read as written, and keys without an image are reported."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.labels.by_key import ABSENT, EMPTY, labels_by_key
from engine.labels.classes import ClassList

KEYS = pa.array(["007", "a,b", "c", "d"])
CLASSES = ClassList(("0", "01"))


def test_keys_and_labels_of_a_csv_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text('key,label,predicted\n"a,b",01,0\n007,0,01\nd,,0\n')
    assert labels_by_key(str(path), KEYS, CLASSES).tolist() == [0, 1, ABSENT, EMPTY]


def test_parquet_is_read_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["c"], "label": ["01"]}), tmp_path / "v.parquet")
    assert labels_by_key(str(tmp_path / "v.parquet"), KEYS, CLASSES).tolist() == [ABSENT, ABSENT, 1, ABSENT]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,label\nnobody,0\n", "match no image.*nobody"),
        ("key,label\nc,0\nc,01\n", "'c' is in more than one row"),
        ("key,label\nc,cat\n", "not among the 2 classes"),
        ("key,class\nc,0\n", "columns key and label are required"),
    ],
)
def test_a_table_that_does_not_fit_raises(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        labels_by_key(str(path), KEYS, CLASSES)
