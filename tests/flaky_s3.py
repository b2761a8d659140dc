"""An S3 server in a bad mood: a proxy before another that answers some requests with 503, and others not at all."""

import http.client
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class Moods:
    """What happens to the n-th request; `seen` counts what did."""

    def __init__(self, stalls: float = 8.0) -> None:
        self.stalls = stalls
        self.seen: Counter[str] = Counter()
        self._numbers = count(1)

    def next(self) -> str:
        number = next(self._numbers)
        mood = "served"
        if number % 5 == 2:
            mood = "refused"
        if number % 13 == 5:
            mood = "dropped"
        if number % 61 == 40:
            mood = "stalled"
        self.seen[mood] += 1
        return mood


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server at `behind`, as its `moods` are."""

    def __init__(self, behind: tuple[str, int], moods: Moods) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.moods = behind, moods


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body, mood = self._body(), self.server.moods.next()
        if mood == "served":
            self._pass_on(body)
        elif mood == "refused":
            self._send(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        else:
            time.sleep(self.server.moods.stalls if mood == "stalled" else 0)
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

    def _pass_on(self, body: bytes) -> None:
        behind = http.client.HTTPConnection(*self.server.behind)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        behind.request(self.command, self.path, body or None, headers)
        answer = behind.getresponse()
        self._send(answer.status, answer.getheaders(), answer.read())
        behind.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """The answer to HEAD has the length of a body that does not come."""
        told = {name.lower(): value for name, value in headers}
        length = told.get("content-length", "0") if self.command == "HEAD" else str(len(body))
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def flaky(host: str, port: int, moods: Moods) -> Iterator[int]:
    """The port on localhost of a proxy for the server at `host`:`port`."""
    proxy = Proxy((host, port), moods)
    thread = Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(proxy.server_address[1])
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
