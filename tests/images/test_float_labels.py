"""A column of whole numbers with gaps, which pandas writes as floats, is one of labels."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.images.sources import list_images
from tests.images import making


def write(folder: Path, labels: pa.Array) -> str:
    pq.write_table(
        pa.table({"image": [making.jpeg(n) for n in range(len(labels))], "label": labels}), folder / "a.parquet"
    )
    return str(folder)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_whole_numbers_are_labels_and_nan_is_a_gap(tmp_path: Path, kind: pa.DataType) -> None:
    labels = pa.array([1.0, 2.0, float("nan"), 1.0, None], pa.float64()).cast(kind)
    (tmp_path / "set").mkdir()
    uri = write(tmp_path / "set", labels)
    listing = list_images(uri)
    assert listing.columns.label == "label"
    assert listing.label_counts == {"1": 2, "2": 1}
    assert making.manifest(uri, tmp_path / "store").labels()["label"].to_pylist() == ["1", "2", None, "1", None]
    with pytest.raises(ValueError, match="2 of 5 images have no label"):
        list_images(uri, labelled=True)


def test_fractions_are_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.parquet: label 0\.5\. Labels are names or whole numbers"):
        list_images(write(tmp_path, pa.array([1.0, 0.5])))
