"""Listing: every kind of collection, its shards, its labels, and errors with the remedy."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.images.file_listing import without_credentials
from engine.images.loose import shard_bounds
from engine.images.parquet import split_row_groups
from engine.images.sources import list_images
from engine.settings.data import SourceSettings
from engine.tables import schema

from .making import folder, jpeg, tar

NAMES = ["cat/1.jpg", "cat/2.JPEG", "cat/old/3.jpg", "dog/1.jpg", "dog/2.jpg"]


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 12))
def test_parquet_rows_are_split_without_gap_or_overlap(groups: list[int], rows_per_shard: int) -> None:
    shards = split_row_groups(tuple(groups), rows_per_shard)
    assert [row for start, rows in shards for row in range(start, start + rows)] == list(range(sum(groups)))
    assert all(0 < rows <= rows_per_shard for _, rows in shards)
    first = 0
    for rows in groups:  # a row shard_bounds that fits a shard is never split
        if 0 < rows <= rows_per_shard:
            assert not any(first < start < first + rows for start, _ in shards)
        first += rows


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 9), st.integers(1, 300))
def test_loose_files_are_grouped_by_bytes(sizes: list[int], rows_per_shard: int, shard_bytes: int) -> None:
    bounds = shard_bounds(np.array(sizes, np.int64), rows_per_shard, shard_bytes).tolist()
    assert bounds[0] == 0
    assert bounds[-1] == len(sizes)
    for start, end in pairwise(bounds):
        assert 1 <= end - start <= rows_per_shard
        assert end - start == 1 or sum(sizes[start:end]) <= shard_bytes
        full = end == len(sizes) or end - start == rows_per_shard or sum(sizes[start : end + 1]) > shard_bytes
        assert full


def test_folder_of_class_folders(tmp_path: Path) -> None:
    folder(tmp_path, NAMES)
    folder(tmp_path, [".git/x.jpg", "cat/.thumb.jpg"])
    (tmp_path / "notes.txt").write_text("not an image")
    seen: list[int] = []
    listing = list_images(str(tmp_path), SourceSettings(rows_per_shard=2), labelled=True, progress=seen.append)
    assert listing.kind == "folder"
    assert listing.files is not None
    assert listing.files.schema.equals(schema.FILES)
    assert listing.shards.schema.equals(schema.SHARDS)
    assert listing.files["key"].to_pylist() == NAMES
    assert listing.files["label"].to_pylist() == ["cat"] * 3 + ["dog"] * 2
    assert listing.label_counts == {"cat": 3, "dog": 2}
    assert (listing.num_rows, seen[-1]) == (5, 5)
    assert listing.ignored == {"hidden folder": 1, "hidden": 1, ".txt": 1}
    addresses = list(zip(listing.files["shard"].to_pylist(), listing.files["row"].to_pylist(), strict=True))
    assert addresses == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert sum(listing.shards["bytes"].to_pylist()) == sum((tmp_path / name).stat().st_size for name in NAMES)


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    listing = list_images(str(folder(tmp_path, ["b.jpg", "a.jpg"])))
    assert listing.files is not None
    assert listing.files["key"].to_pylist() == ["a.jpg", "b.jpg"]
    assert listing.files["label"].null_count == 2
    assert listing.label_counts == {}


def test_classes_that_are_numbers_are_ordered_by_value(tmp_path: Path) -> None:
    listing = list_images(str(folder(tmp_path, [f"{n}/a.jpg" for n in (10, 9, 0)])))
    assert list(listing.label_counts) == ["0", "9", "10"]


def table(rows: int = 10, **columns: pa.Array) -> pa.Table:
    return pa.table({"image": [jpeg(n) for n in range(rows)], **columns})


def huggingface(rows: int, names: list[str]) -> pa.Table:
    """As `datasets` writes it: struct images, integer labels, class names in the metadata."""
    images = pa.array([{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in range(rows)])
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    labels = pa.array([n % len(names) for n in range(rows - 1)] + [-1])
    made = pa.table({"image": images, "label": labels})
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_parquet_of_hugging_face_has_class_names(tmp_path: Path) -> None:
    pq.write_table(huggingface(7, ["zebra", "ape"]), tmp_path / "a.parquet")
    listing = list_images(str(tmp_path / "a.parquet"))
    assert listing.kind == "parquet"
    assert listing.files is None
    assert listing.label_counts == {"ape": 3, "zebra": 3}
    with pytest.raises(ValueError, match="1 of 7 images have no label"):
        list_images(str(tmp_path), labelled=True)


@pytest.mark.parametrize("labels", [[10, 9, 10], ["b", "a", "b"], pa.array(["b", "a", "b"]).dictionary_encode()])
def test_labels_of_any_type_are_names(tmp_path: Path, labels: list[int] | list[str]) -> None:
    pq.write_table(table(3, label=pa.array(labels)), tmp_path / "a.parquet")
    assert list(list_images(str(tmp_path), labelled=True).label_counts.values()) == [1, 2]


def test_shards_of_parquet_follow_its_row_groups(tmp_path: Path) -> None:
    pq.write_table(table(10), tmp_path / "a.parquet", row_group_size=3)
    (tmp_path / "deep").mkdir()
    pq.write_table(table(5), tmp_path / "deep" / "b.parquet", row_group_size=5)
    shards = list_images(str(tmp_path), SourceSettings(rows_per_shard=4)).shards
    cuts = list(zip(*(shards[name].to_pylist() for name in ("path", "start", "rows")), strict=True))
    a, b = "a.parquet", "deep/b.parquet"
    assert cuts == [(a, 0, 3), (a, 3, 3), (a, 6, 4), (b, 0, 4), (b, 4, 1)]
    assert shards["shard"].to_pylist() == list(range(5))
    assert all(size > 0 for size in shards["bytes"].to_pylist())


def test_table_of_uris(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    uris = ["../images/1.jpg", str(tmp_path / "images/2.jpg"), "https://example.org/3.jpg"]
    made = pa.table({"url": uris, "class": ["007", "01", None], "other": [1, 2, 3]})
    pcsv.write_csv(made, tmp_path / "lists/all.csv")
    pq.write_table(made, tmp_path / "lists.parquet")
    for uri, first in (("lists/all.csv", uris[0]), ("lists.parquet", uris[0])):
        listing = list_images(str(tmp_path / uri))
        assert listing.kind == "uris"
        assert listing.files is not None
        assert listing.files["path"].to_pylist() == [first, *uris[1:]]
        assert listing.files["key"].to_pylist() == uris
        assert listing.files["label"].to_pylist() == ["007", "01", None]
    nested = list_images(str(tmp_path / "lists"))
    assert nested.digest == list_images(str(tmp_path / "lists/all.csv")).digest


def test_webdataset_tars(tmp_path: Path) -> None:
    members = {"a/0.jpg": jpeg(0), "a/0.cls": b"3\n", "1.png": jpeg(1), "1.json": b'{"label": 12}', "1.txt": b"a dog"}
    tar(tmp_path / "00.tar", members)
    tar(tmp_path / "01.tar", {"2.jpg": jpeg(2), "2.txt": b"cat", "3.seg.png": jpeg(3), "4.jpg": jpeg(4)})
    listing = list_images(str(tmp_path))
    assert listing.kind == "webdataset"
    assert listing.files is not None
    assert listing.files["key"].to_pylist() == ["00.tar/a/0.jpg", "00.tar/1.png", "01.tar/2.jpg", "01.tar/4.jpg"]
    assert listing.files["label"].to_pylist() == ["3", "12", "cat", None]
    assert listing.shards["path"].to_pylist() == ["00.tar", "01.tar"]
    data = (tmp_path / "00.tar").read_bytes()
    path, size = listing.files["path"][1].as_py(), listing.files["bytes"][1].as_py()
    offset = int(path.rpartition("#")[2])
    assert data[offset : offset + size] == jpeg(1)


def test_the_digest_does_not_depend_on_the_location(tmp_path: Path) -> None:
    here = folder(tmp_path / "here", NAMES)
    shutil.copytree(here, tmp_path / "there")
    digest = list_images(str(here)).digest
    assert list_images(str(tmp_path / "there")).digest == digest
    assert list_images(str(here), SourceSettings(rows_per_shard=2)).digest != digest
    (here / "cat/1.jpg").write_bytes(jpeg(99, width=90))
    assert list_images(str(here)).digest != digest


def test_digest_of_parquet_sees_other_values_of_the_same_size(tmp_path: Path) -> None:
    digests = []
    for key in ("a", "a", "b"):
        pq.write_table(pa.table({"key": [key], "image": [jpeg(1)]}), tmp_path / "t.parquet")
        digests.append(list_images(str(tmp_path)).digest)
    assert digests[0] == digests[1] != digests[2]


def write(path: Path, **columns: list[object]) -> None:
    pq.write_table(pa.table(columns), path)


def test_collections_that_cannot_be_listed_raise_with_the_remedy(tmp_path: Path) -> None:
    def refused(pattern: str, uri: Path | str = tmp_path, labelled: bool = False, **settings: str) -> None:
        with pytest.raises(ValueError, match=pattern):
            list_images(str(uri), SourceSettings.model_validate(settings), labelled=labelled)

    refused("no such file or folder", tmp_path / "nowhere")
    refused("no images among 0 files")
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    refused("unpack the archives")
    write(tmp_path / "t.parquet", number=[1], words=["x"])
    refused(r"no column of encoded images or URIs among number \(int64\), words \(string\)\. Set data.image_column")
    refused("data.image_column='pixels' is not a column. Columns: number", image_column="pixels")
    refused("data.key_column='id' is not a column", key_column="id")
    refused("'number' is of type int64. Encoded bytes", image_column="number")
    write(tmp_path / "t.parquet", image=[b"x"], label=[[1]], tag=[[1]])
    refused("label column 'tag' is of type list.* Labels are names or whole numbers", label_column="tag")
    refused("no image has a label; set data.label_column", labelled=True)
    write(tmp_path / "u.parquet", image=[b"x"], label=["a"])
    write(tmp_path / "t.parquet", image=[b"x"], label=[1])
    write(tmp_path / "u.parquet", image=[b"x"], label=[[1]])
    refused("u.parquet: has no column label that can be read as int64, unlike t.parquet")
    (tmp_path / "u.parquet").write_bytes(b"PAR1 but not really")
    refused("u.parquet: not a readable Parquet file")
    folder(tmp_path, ["a/1.jpg"])
    refused("holds 2 Parquet files and 1 image files. Give .* one kind")


def test_incomplete_labelled_folders_raise(tmp_path: Path) -> None:
    folder(tmp_path, ["cat/1.jpg", "stray.jpg"])
    with pytest.raises(ValueError, match=r"1 of 2 images have no label, such as stray.jpg"):
        list_images(str(tmp_path), labelled=True)
    (tmp_path / "stray.jpg").unlink()
    (tmp_path / "dog").mkdir()
    with pytest.raises(ValueError, match="class folders without an image: dog"):
        list_images(str(tmp_path), labelled=True)
    assert list_images(str(tmp_path)).num_rows == 1
    with pytest.raises(ValueError, match="one folder per class"):
        list_images(str(tmp_path / "cat"), labelled=True)


def test_repeated_keys_and_empty_uris_raise(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,key\na.jpg,1\nb.jpg,1\n")
    with pytest.raises(ValueError, match="keys that occur more than once: '1'"):
        list_images(str(tmp_path))
    (tmp_path / "t.csv").write_text("path,label\na.jpg,1\n,1\n")
    with pytest.raises(ValueError, match="row 1 has no path"):
        list_images(str(tmp_path))


def test_collections_without_images_raise(tmp_path: Path) -> None:
    pq.write_table(table(1).slice(1), tmp_path / "t.parquet")
    tar(tmp_path / "t.tar", {"notes.txt": b"no image"})
    for name in ("t.parquet", "t.tar"):
        with pytest.raises(ValueError, match="1 files without any image"):
            list_images(str(tmp_path / name))


def test_damaged_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"nothing like a tar" * 100)
    with pytest.raises(ValueError, match=r"x.tar: not a readable tar"):
        list_images(str(tmp_path))


def test_credentials_are_not_shown() -> None:
    assert without_credentials("s3://key:se%2Fcret@bucket/a?region=x") == "s3://bucket/a?region=x"
    assert without_credentials("s3://key:secret@bucket/a@b/c") == "s3://bucket/a@b/c"
    assert without_credentials("/data/me@home") == "/data/me@home"
