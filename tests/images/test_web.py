"""Web servers that break off, answer nonsense or never end: retried, then the image is rejected by its name."""

from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from engine.images import byte_reader
from engine.images.decode import decode_full_size
from engine.images.errors import RejectedImageError

from .making import everything, jpeg, manifest

asked: Counter[str] = Counter()


class Accidents(BaseHTTPRequestHandler):
    """`/short-2.jpg` sends half a body twice, then the whole; likewise the other accidents."""

    def do_GET(self) -> None:
        asked[self.path] += 1
        kind, _, times = self.path.strip("/").partition(".")[0].partition("-")
        body = jpeg(1)
        if asked[self.path] > int(times or 99):
            self.answer(200, {"Content-Length": str(len(body))}, body)
        elif kind == "short":
            self.answer(200, {"Content-Length": str(len(body))}, body[:100])
        elif kind == "chunks":
            self.answer(200, {"Transfer-Encoding": "chunked"}, b"64\r\n" + body[:50])
        elif kind == "nonsense":
            self.wfile.write(b"nothing like HTTP\r\n\r\n")
        elif kind == "dropped":
            pass
        elif kind == "round":
            self.answer(302, {"Location": self.path}, b"")
        elif kind == "astray":
            self.answer(302, {"Location": "http://a b:x/"}, b"")
        elif kind == "large":
            self.answer(200, {}, bytes(5000))
        else:
            self.answer(int(kind), {"Content-Length": "0"}, b"")
        self.close_connection = True

    def answer(self, code: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    asked.clear()
    monkeypatch.setattr(byte_reader, "PAUSES", (0.0, 0.0))
    with ThreadingHTTPServer(("127.0.0.1", 0), Accidents) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_accidents_that_pass(site: str, tmp_path: Path) -> None:
    names = ["short-2", "chunks-1", "nonsense-2", "dropped-1", "503-2", "429-1"]
    (tmp_path / "t.csv").write_text("url\n" + "".join(f"{site}/{name}.jpg\n" for name in names))
    images = everything(manifest(tmp_path / "t.csv", tmp_path / "store"))["image"].to_pylist()
    assert images == [jpeg(1)] * len(names)
    assert asked == {f"/{name}.jpg": int(name[-1]) + 1 for name in names}


def test_accidents_that_do_not_pass(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_reader, "MAX_DOWNLOAD", 4000)
    tried = {"short": 3, "chunks": 3, "nonsense": 3, "dropped": 3, "500": 3, "404": 1, "403": 1, "large": 1}
    uris = [f"{site}/{name}.jpg" for name in [*tried, "round", "astray"]]
    uris += ["http://[1/x.jpg", "http://a:b/x.jpg", f"http://{'a' * 90}.org/x.jpg", "http:///x.jpg", "http://a b/x.jpg"]
    (tmp_path / "t.csv").write_text("url\n" + "".join(f'"{uri}"\n' for uri in [*uris, f"{site}/ok-0.jpg"]))
    table = everything(manifest(tmp_path / "t.csv", tmp_path / "store"))
    assert table["key"].to_pylist()[:-1] == uris
    assert table["image"].to_pylist() == [*[None] * len(uris), jpeg(1)]
    assert {name: asked[f"/{name}.jpg"] for name in tried} == tried
    with pytest.raises(RejectedImageError, match="missing"):
        decode_full_size(None)


def test_a_server_that_never_ends(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_reader, "MAX_SECONDS", -1.0)
    (tmp_path / "t.csv").write_text(f"url\n{site}/large.jpg\n")
    assert everything(manifest(tmp_path / "t.csv", tmp_path / "store"))["image"].to_pylist() == [None]
    assert asked["/large.jpg"] == 1
