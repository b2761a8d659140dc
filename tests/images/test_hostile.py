"""Containers made to do harm: what cannot be is counted and named, and the rest is used."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.table import Table

from engine.ground.progress import log_event
from engine.images.formats import TOO_LONG
from engine.images.sources import list_images
from engine.report.console import Console

from .making import everything, jpeg, manifest

LONG = "k" * 10_000_000


def header(name: str, size: int = 0, **attributes: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in attributes.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT if size < 0 or size > 2**40 else tarfile.PAX_FORMAT)


def member(name: str, data: bytes, **attributes: object) -> bytes:
    return header(name, len(data), **attributes) + data + bytes(-len(data) % 512)


GOOD = member("a.jpg", jpeg(0))
LAST = member("z.jpg", jpeg(1))
SPARSE = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "s.jpg",
    "GNU.sparse.realsize": str(2**50),
}


@pytest.mark.parametrize(
    ("bad", "reasons", "whole"),
    [
        (header("n.jpg", -10_240), {"impossible size": 1, "rest of a damaged tar": 1}, False),
        (header("h.jpg", 2**62), {"impossible size": 1, "rest of a damaged tar": 1}, False),
        (member("s.jpg", b"1\n0\n1\n".ljust(512, b"\0"), pax_headers=SPARSE), {"sparse file": 1}, True),
        (member("p.jpg", b"x", pax_headers={"size": "-5"}), {"impossible size": 1, "rest of a damaged tar": 1}, False),
        (member("a.json", b"[" * 30_000), {".json without a label": 1}, True),
        (member("a.json", b'{"label":' * 7000), {".json without a label": 1}, True),
        (member("a.cls", b"x" * 20_000), {".cls without a label": 1}, True),
        (member(f"{LONG}.jpg", jpeg(2)), {TOO_LONG: 1}, True),
        (bytes(1024), {"rest of a damaged tar": 1}, False),
        (jpeg(3) * 9, {"rest of a damaged tar": 1}, False),
    ],
    ids=["negative", "2^62", "sparse", "pax", "deep list", "deep dict", "long label", "long name", "second tar", "no header"],
)  # fmt: skip
def test_members_that_cannot_be(tmp_path: Path, bad: bytes, reasons: dict[str, int], whole: bool) -> None:
    (tmp_path / "0.tar").write_bytes(GOOD + bad + LAST + bytes(1024))
    made = manifest(tmp_path, tmp_path / "../store")
    table = everything(made)
    assert table["key"].to_pylist() == (["0.tar/a.jpg", "0.tar/z.jpg"] if whole else ["0.tar/a.jpg"])
    assert table["image"].to_pylist() == [jpeg(0), jpeg(1)][: 1 + whole]
    assert made.ignored == reasons
    assert made.label_counts == {}


def test_a_tar_that_was_cut_off_is_counted(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes((GOOD + LAST)[:-600])
    (tmp_path / "1.tar").write_bytes(LAST + bytes(1024))
    made = manifest(tmp_path, tmp_path / "../store")
    assert everything(made)["key"].to_pylist() == ["0.tar/a.jpg", "1.tar/z.jpg"]
    assert made.ignored == {"impossible size": 1, "rest of a damaged tar": 1}


def test_a_key_without_measure_goes_by_its_row(tmp_path: Path) -> None:
    columns = {"key": ["a", LONG, "c"], "label": ["x", "y", LONG]}
    pq.write_table(pa.table({"image": [jpeg(n) for n in range(3)], **columns}), tmp_path / "t.parquet")
    made = manifest(tmp_path / "t.parquet", tmp_path / "store")
    table = everything(made)
    assert table["key"].to_pylist() == ["a", "t.parquet:1", "c"] == made.keys()["key"].to_pylist()
    assert table["image"].to_pylist() == [jpeg(0), None, jpeg(2)]
    assert table["label"].to_pylist() == ["x", "y", None]
    pq.write_table(pa.table({"uri": ["1.jpg", "2.jpg", "3.jpg"], **columns}), tmp_path / "u.parquet")
    listing = list_images(str(tmp_path / "u.parquet"))
    assert (listing.num_rows, listing.ignored, listing.label_counts) == (2, {TOO_LONG: 1}, {"x": 1})


def logged(text: str) -> None:
    log_event(text, text)


def tabled(text: str) -> None:
    table = Table(text)
    table.add_row(text)
    Console(width=100).print(table, text)


@pytest.mark.parametrize("show", [logged, tabled])
def test_control_characters_never_reach_a_terminal(
    show: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    show("a\x1b]0;gone\x07\x1b[2J\r\x9b\u202egpj.é")
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(out)
    assert r"a\x1b]0;gone\x07\x1b[2J\r\x9b\u202egpj.é" in out


def test_lists_of_tars_survive_one_that_is_none(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w:gz") as file:
        file.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(ValueError, match=r"0\.tar: not a readable tar.*Decompress"):
        list_images(str(tmp_path))
