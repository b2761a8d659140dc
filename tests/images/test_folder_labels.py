"""Folders that are not what they seem: splits, unlabelled images, metadata files, partitions, pictures under two classes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from engine.images.collection import shown_classes
from engine.images.overlap import contradictions, read_content_hashes
from engine.images.sources import Listing, list_images
from engine.settings.data import SourceSettings

from .making import everything, folder, jpeg, manifest


def labels(listing: Listing) -> list[str | None]:
    assert listing.files is not None
    found: list[str | None] = listing.files["label"].to_pylist()
    return found


def test_splits_are_no_classes(tmp_path: Path) -> None:
    folder(tmp_path, ["Train/cat/1.jpg", "Train/dog/1.jpg", "val/cat/2.jpg", "unlabeled/3.jpg"])
    with pytest.raises(ValueError, match=r"folders Train, val are splits, not classes. Give one of them: .*/val"):
        list_images(str(tmp_path), labelled=True)
    pool = list_images(str(tmp_path))
    assert (labels(pool), pool.label_counts) == ([None] * 4, {})
    assert pool.notes == ("folders Train, val are splits, not classes: the images have no labels",)
    assert list_images(str(tmp_path / "Train"), labelled=True).label_counts == {"cat": 1, "dog": 1}


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    listing = list_images(str(folder(tmp_path, ["train/1.jpg", "bus/1.jpg"])), labelled=True)
    assert (listing.label_counts, listing.notes) == ({"bus": 1, "train": 1}, ())


def test_images_in_unlabeled_have_no_label(tmp_path: Path) -> None:
    folder(tmp_path, ["cat/1.jpg", "dog/1.jpg", "unlabeled/1.jpg"])
    assert list_images(str(tmp_path)).label_counts == {"cat": 1, "dog": 1}
    with pytest.raises(ValueError, match=r"1 of 3 images have no label, such as unlabeled/1.jpg"):
        list_images(str(tmp_path), labelled=True)


CSV = "file_name,split,label\n1.jpg,x,007\nold/2.jpg,x,cat\nnone.jpg,x,cat\n"
JSONL = '{"file_name": "1.jpg", "label": "007", "b": [1]}\n\n{"file_name": "old/2.jpg", "label": "cat"}\n{"file_name": "none.jpg", "label": "cat"}\n'


@pytest.mark.parametrize(("name", "text"), [("metadata.csv", CSV), ("metadata.jsonl", JSONL)])
def test_labels_in_a_metadata_file(tmp_path: Path, name: str, text: str) -> None:
    folder(tmp_path, ["a/1.jpg", "a/old/2.jpg", "a/3.jpg", "b/1.jpg"])
    (tmp_path / "a" / name).write_text(text)
    (tmp_path / "b" / name).write_text(text.replace("label", "words"))
    listing = list_images(str(tmp_path))
    assert labels(listing) == ["007", None, "cat", "b"]
    assert listing.notes[:2] == (f"a/{name}: 1 rows name no image", f"a/{name}: labels of 2 images")
    assert listing.notes[2].startswith(f"b/{name}: not used, no column file_name or none of labels among file_name, ")
    assert listing.num_rows + listing.labels_read + sum(listing.ignored.values()) == 6
    named = list_images(str(tmp_path), SourceSettings(label_column="words"))
    assert labels(named) == ["a", "a", "a", "007"]
    (tmp_path / "a" / name).write_text(text.replace("none", "1"))
    with pytest.raises(ValueError, match=f"a/{name}: 1 images are in more than one row"):
        list_images(str(tmp_path))


def test_metadata_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder(tmp_path, ["1.jpg"])
    for line in ("{", "[1]", "[" * 40_000):
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.jpg", "label": "a"}\n' + line)
        with pytest.raises(ValueError, match=r"metadata.jsonl: line 2 is not a JSON object"):
            list_images(str(tmp_path))


@pytest.mark.parametrize("column", ["image", "path"])
def test_partitions_of_parquet_are_columns(tmp_path: Path, column: str) -> None:
    values = [jpeg(n) for n in range(5)] if column == "image" else [f"{n}.jpg" for n in range(5)]
    table = pa.table({column: values, "label": ["a b", "ö/x", "a b", None, "ö/x"]})
    flavour = pads.partitioning(pa.schema([("label", pa.string())]), flavor="hive")
    pads.write_dataset(table, tmp_path / "t", format="parquet", partitioning=flavour)
    made = manifest(tmp_path / "t", tmp_path / "store")
    assert made.label_counts == {"a b": 2, "ö/x": 2}
    assert made.labels()["label"].to_pylist() == ["ö/x", "ö/x", None, "a b", "a b"]
    assert everything(made)["label"].to_pylist() == ["ö/x", "ö/x", None, "a b", "a b"]
    (tmp_path / "t/_temporary").mkdir()
    pq.write_table(table, tmp_path / "t/_temporary/0.parquet")
    assert list_images(str(tmp_path / "t")).ignored == {"folder _temporary": 1}
    pq.write_table(table.select([column]), tmp_path / "t/stray.parquet")
    with pytest.raises(ValueError, match=r"stray.parquet: has no column label"):
        list_images(str(tmp_path / "t"))


def test_a_picture_under_two_classes_is_said(tmp_path: Path) -> None:
    folder(tmp_path, ["cat/1.jpg", "cat/2.jpg", "dog/3.jpg"])
    (tmp_path / "dog/1.jpg").write_bytes(jpeg(0))
    (tmp_path / "cat/copy.jpg").write_bytes(jpeg(1))
    made = manifest(tmp_path, tmp_path / "../store")
    labels = dict(zip(made.keys()["key"].to_pylist(), made.labels()["label"].to_pylist(), strict=True))
    said = contradictions(read_content_hashes(made), labels)
    assert said == "1 picture with several labels: cat/1.jpg (cat) = dog/1.jpg (dog). Remove the wrong ones."
    assert contradictions(read_content_hashes(made), dict.fromkeys(labels, "x")) == ""


def test_classes_are_shown_with_their_counts() -> None:
    assert shown_classes({"cat": 1500, "dog": 8}, 1510) == "2 classes: cat 1,500, dog 8; 2 images without a label"
    many = {f"c{n}": n for n in range(1, 31)}
    assert shown_classes(many, 465) == "30 classes: 1 (c1) to 30 (c30) images each"
