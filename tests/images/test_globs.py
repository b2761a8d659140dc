"""Patterns, lists of paths, and folders that img2dataset and datasets write."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.ground import storage
from engine.images.globs import expand_braces, to_regex
from engine.images.sources import Listing, list_images

from .making import everything, folder, jpeg, manifest, tar


def keys(listing: Listing) -> list[str]:
    assert listing.files is not None
    found: list[str] = listing.files["key"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{2..0}{a,b}", ["2a", "2b", "1a", "1b", "0a", "0b"]),
        ("{x}*", ["{x}*"]),
        ("plain", ["plain"]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "hits", "misses"),
    [
        ("*.jpg", ["a.jpg", "é b.jpg"], ["a/b.jpg", "a.jpgx", "a.png"]),
        ("**/x[0-9].jpg", ["x1.jpg", "a/b/x2.jpg"], ["xa.jpg", "x11.jpg"]),
        ("a?/[!b]*", ["ab/c.jpg", "ab/c/d.jpg"], ["abc/c.jpg", "ab/b.jpg"]),
        ("cats", ["cats/1.jpg", "cats/a/1.jpg"], ["cats2/1.jpg"]),
        ("a+(b).jpg", ["a+(b).jpg"], ["aab.jpg"]),
    ],
)
def test_patterns(pattern: str, hits: list[str], misses: list[str]) -> None:
    expression = re.compile(to_regex(pattern))
    assert all(expression.fullmatch(path) for path in hits)
    assert not any(expression.fullmatch(path) for path in misses)


def test_braces_without_measure_are_refused() -> None:
    for pattern in ("{0..99999999}", "{0..9999}{0..9999}"):
        with pytest.raises(ValueError, match="more than 1,000,000 names"):
            expand_braces(pattern)


def test_collections_by_pattern(tmp_path: Path, s3: str) -> None:
    folder(tmp_path / "f", ["cat/1.jpg", "cat/2.png", "dog/1.jpg", "owl/1.jpg"])
    assert keys(list_images(f"{tmp_path}/f/*/*.jpg")) == ["cat/1.jpg", "dog/1.jpg", "owl/1.jpg"]
    some = list_images(f"{tmp_path}/f/{{cat,dog}}", labelled=True)
    assert some.label_counts == {"cat": 2, "dog": 1}
    for number in range(3):
        pq.write_table(pa.table({"image": [jpeg(number)]}), tmp_path / f"{number:02d}.parquet")
    made = manifest(f"{tmp_path}/{{00..01}}.parquet", tmp_path / "store")
    assert everything(made)["image"].to_pylist() == [jpeg(0), jpeg(1)]
    with pytest.raises(ValueError, match=r"\{00\.\.04\}\.parquet: 2 of 5 patterns match none .* first 03.parquet"):
        list_images(f"{tmp_path}/{{00..04}}.parquet")
    with pytest.raises(ValueError, match="1 of 1 patterns match none"):
        list_images(f"{tmp_path}/*.tar")
    with pytest.raises(ValueError, match="no such file or folder"):
        list_images(f"{tmp_path}/nowhere/*.tar")
    fs, root = storage.resolve(s3.format("globs"))
    for name in ("a1.jpg", "a2.jpg", "b1.jpg"):
        storage.put(fs, f"{root}/{name}", jpeg(4))
    assert keys(list_images(s3.format("globs/a[12].jpg"))) == ["a1.jpg", "a2.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_text("uri\nx.jpg\n")
    assert keys(list_images(f"{tmp_path}/a[1].csv")) == ["x.jpg"]


def test_a_list_of_paths(tmp_path: Path) -> None:
    folder(tmp_path, ["b 1.jpg", "a/2.jpg"])
    (tmp_path / "list.txt").write_text(f"b 1.jpg\n\n{tmp_path}/a/2.jpg\r\n")
    made = manifest(tmp_path / "list.txt", tmp_path / "store")
    assert everything(made)["image"].to_pylist() == [jpeg(0), jpeg(1)]


def test_folders_of_img2dataset(tmp_path: Path) -> None:
    meta = pa.table({"url": ["http://x/1.jpg"], "key": ["000000000"], "status": ["success"]})
    for name in ("tars", "files"):
        (tmp_path / name).mkdir()
        pq.write_table(meta, tmp_path / name / "00000.parquet")
        (tmp_path / name / "00000_stats.json").write_text("{}")
    tar(tmp_path / "tars/00000.tar", {"000000000.jpg": jpeg(0), "000000000.txt": b"a cat", "000000000.json": b"{}"})
    listing = list_images(str(tmp_path / "tars"))
    assert (listing.kind, keys(listing)) == ("webdataset", ["00000.tar/000000000.jpg"])
    assert listing.ignored == {".parquet": 1, ".json": 1, ".json without a label": 1}
    folder(tmp_path / "files", ["00000/000000000.jpg"])
    (tmp_path / "files/00000/000000000.txt").write_text("a cat")
    listing = list_images(str(tmp_path / "files"))
    assert (listing.kind, keys(listing), listing.label_counts) == ("folder", ["00000/000000000.jpg"], {})
    pq.write_table(meta, tmp_path / "files/other.parquet")
    with pytest.raises(ValueError, match="holds 2 Parquet files and 1 image files"):
        list_images(str(tmp_path / "files"))


def test_a_dataset_saved_to_disk_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data-00000-of-00001.arrow").write_bytes(b"x")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"save_to_disk: write them with dataset\.to_parquet"):
        list_images(str(tmp_path))
