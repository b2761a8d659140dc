"""Text in other encodings is read, or named with file and line; NFC and NFD names are one name."""

import io
import tarfile
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.images.overlap import ContentHashes, build_exclusion_set
from engine.images.sources import list_images
from engine.labels.by_key import labels_by_key
from engine.labels.classes import ClassList
from engine.settings.data import SourceSettings
from engine.tasks.task import known_classes

from .making import everything, folder, jpeg, manifest

NFC, NFD = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
TEXT = f"path,label\na.jpg,chat\nb.jpg,{NFC}\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_tables_in_any_unicode(tmp_path: Path, encoding: str, name: str) -> None:
    text = TEXT.replace(",", "\t") if name == "t.tsv" else TEXT
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert list_images(str(tmp_path)).label_counts == {"chat": 1, NFC: 1}


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("label", "étiquette")])
def test_a_table_in_latin_1_is_named_or_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    line = 1 if "étiquette" in text else 3
    with pytest.raises(ValueError, match=rf"t\.csv: line {line} is not UTF-8 text.*data\.encoding"):
        list_images(str(tmp_path))
    column = "étiquette" if line == 1 else None
    listing = list_images(str(tmp_path), SourceSettings(encoding="latin-1", label_column=column))
    assert listing.label_counts == {"chat": 1, NFC: 1}
    with pytest.raises(ValueError, match=r"data.encoding='nonsense' is no known encoding"):
        list_images(str(tmp_path), SourceSettings(encoding="nonsense"))


def test_labels_by_key_in_other_encodings(tmp_path: Path) -> None:
    keys, classes = pa.array(["a.jpg", "b.jpg"]), ClassList(("chat", NFC))
    text = TEXT.replace("path", "key")
    (tmp_path / "l.csv").write_bytes(text.encode("utf-16"))
    assert labels_by_key(str(tmp_path / "l.csv"), keys, classes).tolist() == [0, 1]
    (tmp_path / "l.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"l\.csv: line 3 is not UTF-8 text"):
        labels_by_key(str(tmp_path / "l.csv"), keys, classes)


def test_names_and_labels_of_a_tar_in_latin_1(tmp_path: Path) -> None:
    for encoding in ("latin-1", "cp1251"):
        with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT, encoding=encoding) as file:
            word = "été" if encoding == "latin-1" else "лето"
            for name, data in ((f"{word}.jpg", jpeg(0)), (f"{word}.cls", word.encode(encoding))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        made = manifest(tmp_path, tmp_path / f"../{encoding}", encoding=None if encoding == "latin-1" else encoding)
        table = everything(made)
        assert (table["key"].to_pylist(), table["label"].to_pylist()) == ([f"0.tar/{word}.jpg"], [word])
        assert table["image"].to_pylist() == [jpeg(0)]


def test_accents_in_two_forms_are_one_class(tmp_path: Path) -> None:
    folder(tmp_path / "f", [f"{NFC}/1.jpg", f"{NFD}/2.jpg", "chat/1.jpg"])
    listing = list_images(str(tmp_path / "f"), labelled=True)
    assert listing.label_counts == {"chat": 1, NFC: 2}
    assert listing.files is not None
    assert sorted(listing.files["path"].to_pylist())[1:] == sorted([f"{NFC}/1.jpg", f"{NFD}/2.jpg"])
    pq.write_table(pa.table({"image": [b"x"] * 3, "label": [NFD, NFC, None]}), tmp_path / "t.parquet")
    made = manifest(tmp_path / "t.parquet", tmp_path / "store")
    assert made.labels()["label"].to_pylist() == [NFC, NFC, None] == everything(made)["label"].to_pylist()
    assert made.label_counts == {NFC: 2}
    classes = known_classes([NFC, "chat"], ["chat", NFD])
    assert classes.names == ("chat", NFC)
    assert (NFD in classes, classes.index(NFD)) == (True, 1)
    assert classes.indices(pa.array([NFD, NFC, None]), "x").tolist() == [1, 1, -1]


def test_accents_in_two_forms_are_one_key(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"key,label\n{NFC}.jpg,a\nb.jpg,b\n")
    assert labels_by_key(
        str(tmp_path / "l.csv"), pa.array(["b.jpg", f"{NFD}.jpg"]), ClassList(("a", "b"))
    ).tolist() == [1, 0]
    exclusions = build_exclusion_set({"test": ContentHashes([NFC], [bytes(16)], True)})
    assert exclusions.reason(NFD, bytes([1] * 16)) == "excluded: also in test"
