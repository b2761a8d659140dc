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
        mood = (
            "stalled"
            if number % 61 == 40
            else "dropped"
            if number % 13 == 5
            else "refused"
            if number % 5 == 2
            else "served"
        )
        self.seen[mood] += 1
        return mood


@contextmanager
def flaky(host: str, port: int, moods: Moods) -> Iterator[int]:
    """The port on localhost of a proxy for the server at `host`:`port`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            mood = moods.next()
            if mood in ("dropped", "stalled"):
                time.sleep(moods.stalls if mood == "stalled" else 0)
                self.close_connection = True
            elif mood == "refused":
                self._send(503, [("Content-Type", "application/xml")], SLOW_DOWN)
            else:
                behind = http.client.HTTPConnection(host, port)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                behind.request(self.command, self.path, body or None, headers)
                answer = behind.getresponse()
                self._send(answer.status, answer.getheaders(), answer.read())
                behind.close()

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            named = {name.lower() for name, _ in headers}
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP and not (name.lower() == "content-length" and self.command != "HEAD"):
                    self.send_header(name, value)
            if self.command != "HEAD" or "content-length" not in named:
                self.send_header("Content-Length", str(0 if self.command == "HEAD" else len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
