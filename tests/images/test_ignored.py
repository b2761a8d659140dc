"""Every input file is an image, a label, or ignored with a count and a reason."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from engine.images.formats import explain_ignored, split_member, with_dots
from engine.images.sources import Listing, list_images
from engine.settings.data import SourceSettings

from .making import encode, everything, folder, jpeg, manifest, picture, tar


def keys(listing: Listing) -> list[str]:
    assert listing.files is not None
    found: list[str] = listing.files["key"].to_pylist()
    return found


def test_every_file_of_a_folder_is_counted(tmp_path: Path) -> None:
    folder(tmp_path, ["a/1.jpg", "b/2.JPG", "b/.thumb.jpg", "b/@eaDir/2.jpg", "__MACOSX/b/2.jpg"])
    others = ["a/1.xmp", "a/raw.NEF", "b/3.jxl", "b/noending", "readme.txt", "b/odd.2021 a-b"]
    for name in others:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b/lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "b/pipe.jpg")
    (tmp_path / os.fsdecode(b"b/caf\xe9.jpg")).write_bytes(jpeg(9))
    listing = list_images(str(tmp_path))
    assert keys(listing) == ["a/1.jpg", "b/2.JPG"]
    reasons = ["hidden", "folder @eaDir", "folder __MACOSX", "broken link", "not a file", "name that is not UTF-8"]
    endings = [".xmp", ".nef", ".jxl", "no ending", ".txt", "other endings"]
    assert listing.ignored == dict.fromkeys([*reasons, *endings], 1)
    inputs = sum(len(names) for _, _, names in os.walk(tmp_path))
    assert listing.num_rows + sum(listing.ignored.values()) == inputs
    text = explain_ignored(listing.ignored)
    assert text.startswith("12 files ignored: ")
    assert "1 .jxl (convert them to JPEG)" in text


def test_a_link_to_a_folder_above_is_not_followed(tmp_path: Path) -> None:
    folder(tmp_path, [f"cat/{n}.jpg" for n in range(3)])
    folder(tmp_path / "other", ["x.jpg"])
    (tmp_path / "cat/again").symlink_to(tmp_path)
    (tmp_path / "dog").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(tmp_path / "other")
    listing = list_images(str(tmp_path))
    assert keys(listing) == ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/x.jpg", "other/x.jpg"]
    assert listing.ignored == {"link to a folder above": 3}


def test_every_member_of_a_tar_is_counted(tmp_path: Path) -> None:
    members = {
        "photo.2021.05.01.jpg": jpeg(0),
        "photo.2021.05.01.cls": b"cat",
        "d/1.jpg": jpeg(1),
        "d/1.json": b'{"width": 3}',
        "2.seg.png": jpeg(2),
        "2.JPG": jpeg(3),
        "2.heic2": b"x",
        "._2.jpg": b"x",
        "3.jpg": b"",
        "4 [a]%20@?é.jpg": jpeg(4),
    }
    tar(tmp_path / "0.tar", members)
    (tmp_path / "0.md").write_text("notes")
    listing = list_images(str(tmp_path))
    assert keys(listing) == [
        f"0.tar/{n}" for n in ("photo.2021.05.01.jpg", "d/1.jpg", "2.JPG", "3.jpg", "4 [a]%20@?é.jpg")
    ]
    assert listing.label_counts == {"cat": 1}
    ignored = {".md": 1, ".json without a label": 1, ".seg.png": 1, ".heic2": 1, "hidden": 1}
    assert listing.ignored == ignored
    assert listing.num_rows + listing.labels_read + sum(listing.ignored.values()) == len(members) + 1


def test_links_in_a_tar_are_the_files_they_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as file:
        for name, kind, link in (
            ("soft.jpg", tarfile.SYMTYPE, "a/0.jpg"),
            ("a/0.jpg", tarfile.REGTYPE, ""),
            ("b/hard.jpg", tarfile.LNKTYPE, "a/0.jpg"),
            ("b/up.jpg", tarfile.SYMTYPE, "../a/0.jpg"),
            ("lost.jpg", tarfile.SYMTYPE, "nowhere.jpg"),
            ("device.jpg", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(jpeg(0)) if kind == tarfile.REGTYPE else 0
            file.addfile(info, io.BytesIO(jpeg(0)))
    made = manifest(tmp_path, tmp_path / "store")
    table = everything(made)
    assert table["key"].to_pylist() == [f"0.tar/{n}.jpg" for n in ("soft", "a/0", "b/hard", "b/up")]
    assert table["image"].to_pylist() == [jpeg(0)] * 4
    assert made.ignored == {"link without its file": 1, "not a file": 1}


def test_endings_are_a_setting(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", {"7.input.jpg": jpeg(0), "7.mask.png": jpeg(1), "7.cls": b"cat", "www.a.org.jpg": jpeg(2)})
    with pytest.raises(ValueError, match=r"without any image.*1 \.input\.jpg"):
        list_images(str(tmp_path))
    listing = list_images(str(tmp_path), SourceSettings(extensions=["Input.jpg"]))
    assert (keys(listing), listing.label_counts) == (["0.tar/7.input.jpg"], {"cat": 1})
    assert keys(list_images(str(tmp_path), SourceSettings(extensions=[".jpg"]))) == [
        "0.tar/7.input.jpg",
        "0.tar/www.a.org.jpg",
    ]
    folder(tmp_path / "hashes", ["ab/ab12", "ab/cd.v2/34"])
    with pytest.raises(ValueError, match=r"no images among 2 files.*2 no ending"):
        list_images(str(tmp_path / "hashes"))
    assert list_images(str(tmp_path / "hashes"), SourceSettings(extensions=["."])).num_rows == 2


@pytest.mark.parametrize(
    ("name", "sample", "ending"),
    [
        ("0.jpg", "0", ".jpg"),
        ("3.seg.png", "3", ".seg.png"),
        ("a.2.5 m.JPEG", "a.2.5 m", ".jpeg"),
        ("noending", "noending", ""),
        (".jpg", "", ".jpg"),
    ],
)
def test_sample_and_ending_of_a_member(name: str, sample: str, ending: str) -> None:
    assert split_member(name, with_dots(None), (".cls",)) == (sample, ending)


def test_avif_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.avif").write_bytes(encode(picture(1), "AVIF"))
    assert keys(list_images(str(tmp_path))) == ["a.avif"]


def test_heic_is_read_with_its_extra_and_else_counted(tmp_path: Path) -> None:
    folder(tmp_path, ["b.jpg"])
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        (tmp_path / "a.heic").write_bytes(b"x")
        ignored = list_images(str(tmp_path)).ignored
        assert explain_ignored(ignored) == "1 file ignored: 1 .heic (install the extra heif)"
        return
    from engine.images.decode import decode_full_size

    (tmp_path / "a.heic").write_bytes(encode(picture(1), "HEIF"))
    assert keys(list_images(str(tmp_path))) == ["a.heic", "b.jpg"]
    assert decode_full_size((tmp_path / "a.heic").read_bytes()).shape == (16, 24, 3)
