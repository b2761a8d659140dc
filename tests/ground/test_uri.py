"""URIs are taken apart once, and only the root of a filesystem is parsed by Arrow."""

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from engine.ground import storage
from engine.ground.uri import Uri, split_uri, without_credentials


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("S3A://bucket/a b[1]%20@x?y.jpg", Uri("s3", "bucket", "a b[1]%20@x?y.jpg")),
        ("s3://k:s%2Fx@bucket/a?b.jpg?region=x&scheme=http", Uri("s3", "k:s%2Fx@bucket", "a?b.jpg", "region=x&scheme=http")),
        ("s3://bucket?region=x", Uri("s3", "bucket", "", "region=x")),
        ("s3://bucket/a?versionId=3", Uri("s3", "bucket", "a?versionId=3")),
        ("gcs://bucket/é.jpg", Uri("gs", "bucket", "é.jpg")),
        ("abfss://box@account.dfs.core.windows.net/a", Uri("abfss", "box@account.dfs.core.windows.net", "a")),
        ("FILE:/data/a%20b", Uri("file", "", "data/a%20b")),
        ("http://host/a?w=1", Uri("http", "host", "a?w=1")),
        ("/data/50%?.jpg", Uri("", "", "/data/50%?.jpg")),
    ],
)  # fmt: skip
def test_parts(uri: str, parts: Uri) -> None:
    assert split_uri(uri) == parts


def test_local_uris_are_decoded_and_paths_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.resolve(f"file://{tmp_path}/a%20b")[1] == f"{tmp_path}/a b"
    assert storage.resolve(f"File://localhost{tmp_path}/a b[1]")[1] == f"{tmp_path}/a b[1]"
    assert storage.resolve(f"{tmp_path}/a%20b")[1] == f"{tmp_path}/a%20b"
    assert storage.resolve("~/a")[1] == f"{tmp_path}/a"
    with pytest.raises(ValueError, match="file://elsewhere: cannot be opened"):
        storage.resolve("file://elsewhere/a")


def test_paths_on_object_stores(s3: str) -> None:
    fs, root = storage.resolve(s3.format("a b"))
    assert root == "bucket/a b"
    storage.put(fs, f"{root}/[1]@x?.jpg", b"bytes")
    other, path = storage.resolve(s3.format("a%20b/[1]@x?.jpg").replace("s3://", "S3A://"))
    assert isinstance(other, pafs.S3FileSystem)
    assert storage.get(other, path) == b"bytes"


def test_credentials_are_not_shown() -> None:
    assert without_credentials("abfs://box:key@account/a") == "abfs://box@account/a"
    with pytest.raises(ValueError, match="nosuch://host: cannot") as caught:
        storage.resolve("nosuch://me:secret@host/a")
    assert "secret" not in str(caught.value)
