"""Tables of URIs: every URI names one file, whatever its characters, and reads the same in every order."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.csv as pcsv
import pytest

from engine.ground import storage
from engine.images.sources import list_images

from .making import everything, folder, jpeg, manifest

NAMES = ["a b.jpg", "[1].jpg", "50%.jpg", "a%20b.jpg", "été.jpg", "x@y.jpg", "what?.jpg", "#3.jpg", "plain.jpg"]


def table(path: Path, uris: list[str]) -> Path:
    pcsv.write_csv(pa.table({"uri": uris}), path)
    return path


def test_any_character_in_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "images", NAMES)
    monkeypatch.setenv("HOME", str(tmp_path))
    uris = [f"images/{name}" for name in NAMES]
    uris += [f"{tmp_path}/images/{name}" for name in NAMES] + [f"~/images/{name}" for name in NAMES]
    encoded = ["a%20b", "%5B1%5D", "50%25", "a%2520b", "%C3%A9t%C3%A9", "x%40y", "what%3F", "%233", "plain"]
    uris += [f"file://{tmp_path}/images/{name}.jpg" for name in encoded]
    uris += [f"FILE:{tmp_path}/images/plain.jpg", f"file://localhost{tmp_path}/images/a b.jpg"]
    images = everything(manifest(table(tmp_path / "t.csv", uris), tmp_path / "store"))["image"].to_pylist()
    assert images == [*(jpeg(n) for n in range(len(NAMES))), *images[len(NAMES) :]]
    assert images == [*images[: len(NAMES)] * 4, jpeg(NAMES.index("plain.jpg")), jpeg(0)]


@pytest.mark.parametrize("local", [True, False], ids=["table on disk", "table on S3"])
def test_any_character_in_keys_of_s3(tmp_path: Path, s3: str, local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Mock(wraps=storage.open_root)
    monkeypatch.setattr(storage, "open_root", opened)
    fs, root = storage.resolve(s3.format("odd"))
    for seed, name in enumerate(NAMES):
        storage.put(fs, f"{root}/{name}", jpeg(seed))
    if local:
        at = str(table(tmp_path / "t.csv", [s3.format(f"odd/{name}") for name in NAMES]))
    else:
        names = [f"S3A://bucket/odd/{name}" for name in NAMES[:-1]] + ["../odd/plain.jpg"]
        storage.put(fs, "bucket/lists/t.csv", table(tmp_path / "t.csv", names).read_bytes())
        at = s3.format("lists/t.csv")
    made = manifest(at, tmp_path / "store")
    opened.reset_mock()
    expected = [jpeg(n) for n in range(len(NAMES))]
    assert [everything(made)["image"].to_pylist() for _ in range(2)] == [expected] * 2
    assert opened.call_count == 1


class Pages(BaseHTTPRequestHandler):
    """Answers with the path as it arrived."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


def test_addresses_are_encoded_as_a_browser_does(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        site = f"127.0.0.1:{server.server_port}"
        uris = [f"HTTP://{site}/a b/[é].jpg?w=50%&x=%20", f"http://{site}"]
        images = everything(manifest(table(tmp_path / "t.csv", uris), tmp_path / "store"))["image"].to_pylist()
        server.shutdown()
    assert images == [b"/a%20b/%5B%C3%A9%5D.jpg?w=50%25&x=%20", b"/"]


def test_what_cannot_be_a_path_is_named(tmp_path: Path) -> None:
    uris = ["gopher://x/y", "a.jpg", "s3a://bucket/x", "b\tc.jpg", "GOPHER://x/z"]
    notes = list_images(str(table(tmp_path / "t.csv", uris))).notes
    assert notes == (
        "2 URIs of an unknown scheme cannot be read, first 'gopher://x/y'",
        "1 URIs with a control character cannot be read, first 'b\\tc.jpg'",
    )
