"""Read the bytes of loose images: files, members of tars, URIs of any scheme, and tiles of scenes. An image that cannot be read is null,
not an exception."""

import http.client
import posixpath
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar
from urllib.parse import quote

import pyarrow as pa
import pyarrow.fs as pafs

from engine.geo.tile import Tile, split_tile
from engine.geo.tile_reader import TileReader
from engine.ground import storage
from engine.ground.uri import Uri, split_uri
from engine.images.file_listing import Location
from engine.tables import schema

READING_THREADS = 16
"""Concurrent requests of one reader for remote images."""

TIMEOUT = 30.0
"""Seconds to wait for data from a web server."""

MAX_SECONDS = 300.0
"""Longest that one download takes: a server that sends a byte now and then never times out."""

CHUNK = 256 * 2**10
MAX_DOWNLOAD = 256 * 2**20
"""Most bytes that are read from a web server, whose responses are untrusted."""

PAUSES = (0.2, 1.0)
"""Seconds between attempts after a failure that may be transient."""

T = TypeVar("T")


class FileReader:
    """Reads images of schema.FILES; `kind`: kind of the listing."""

    def __init__(self, location: Location, kind: str) -> None:
        self.location, self.kind = location, kind
        self._roots: dict[str, tuple[storage.FileSystem, str] | None] = {}
        self._lock = Lock()
        self._tiles = TileReader()

    def read(self, files: pa.Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Record batches of schema.IMAGES for rows of schema.FILES, in their order; `image` is null if the bytes cannot
        be read."""
        fetch: Callable[[str, int], bytes | None]
        if self.kind == "webdataset" and files.num_rows:
            path = files["path"][0].as_py().rpartition("#")[0]
            fetch = _Tar(self.location, path).member
        else:
            fetch = (
                self.uri
                if self.kind == "uris"
                else lambda path, _: read_file(self.location.fs, self.location.path(path))
            )
        local = self._is_local and self.kind != "uris"
        with ThreadPoolExecutor(1 if local else READING_THREADS) as pool:
            for start in range(0, files.num_rows, batch_rows):
                part = files.slice(start, batch_rows).combine_chunks()
                images = (map if local else pool.map)(fetch, part["path"].to_pylist(), part["bytes"].to_pylist())
                columns = [part["row"], part["key"], pa.array(images, pa.binary()), part["label"]]
                arrays = [one.combine_chunks() if isinstance(one, pa.ChunkedArray) else one for one in columns]
                yield pa.record_batch(arrays, schema=schema.IMAGES)

    def uri(self, uri: str, size: int | None = None) -> bytes | None:  # noqa: ARG002 - the signature of `fetch`
        """The bytes at an absolute URI, or at a path relative to the collection; None if they cannot be read."""
        raster, tile = split_tile(uri)
        if tile is not None:
            return self._tile(raster, tile)
        parts = split_uri(uri)
        if parts.scheme in ("http", "https"):
            return _with_retries(lambda: _download(uri))
        if not parts.scheme and not parts.path.startswith("/"):
            path = self.location.path(parts.path)
            return read_file(self.location.fs, path if self._is_local else posixpath.normpath(path))
        if parts.scheme in ("", "file"):
            return read_file(pafs.LocalFileSystem(), parts.decoded if parts.scheme else parts.path)
        root = self._root(parts)
        return None if root is None else read_file(root[0], f"{root[1]}/{parts.path}")

    def _tile(self, raster: str, tile: Tile) -> bytes | None:
        """The pixels of a tile of a raster on a local path, which may be relative to the collection; None if they cannot be read."""
        parts = split_uri(raster)
        if parts.scheme not in ("", "file") or not (parts.scheme or parts.path.startswith("/") or self._is_local):
            return None
        return self._tiles.read(parts.decoded if parts.scheme else self.location.path(parts.path), tile)

    @property
    def _is_local(self) -> bool:
        return isinstance(self.location.fs, pafs.LocalFileSystem)

    def _root(self, parts: Uri) -> tuple[storage.FileSystem, str] | None:
        """The filesystem of a bucket, opened once, and the bucket's path in it; None if it cannot be opened."""
        store = {"s3": "s3", "gs": "gcs"}.get(parts.scheme)
        if store == self.location.fs.type_name and "@" not in parts.authority and not parts.options:
            return self.location.fs, parts.authority  # with the credentials of the collection
        with self._lock:
            if parts.root not in self._roots:
                try:
                    self._roots[parts.root] = storage.open_root(parts)
                except ValueError:
                    self._roots[parts.root] = None
            return self._roots[parts.root]


class _Tar:
    """One tar, opened once. Raises ValueError when it cannot be opened."""

    def __init__(self, location: Location, path: str) -> None:
        self.path = path
        try:
            self.file = location.fs.open_input_file(location.path(path))
        except OSError as error:
            raise ValueError(
                f"{path}: tar cannot be opened ({error}). Restore it, or list the collection again."
            ) from None

    def member(self, path: str, size: int) -> bytes | None:
        return _with_retries(lambda: self.file.read_at(size, int(path.rpartition("#")[2])))


def read_file(fs: storage.FileSystem, path: str) -> bytes | None:
    """The contents of a file, or None if it cannot be read."""
    return _with_retries(lambda: storage.get(fs, path))


def _with_retries(read: Callable[[], T]) -> T | None:
    """The result of `read`, repeated after transient failures, broken and short responses among them; None if it fails."""
    for pause in (*PAUSES, None):
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError, ValueError, http.client.InvalidURL):
            return None
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                return None
        except (OSError, http.client.HTTPException):
            pass
        if pause is not None:
            time.sleep(pause)
    return None


def _download(uri: str) -> bytes:
    """The body at a web address. Raises ValueError for one that is too long or takes too long, and HTTPException for a short one."""
    # a browser's leniency: blanks and letters of other scripts are encoded, what is encoded stays
    server, slash, path = uri.partition("://")[2].partition("/")
    path = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", quote(path, safe="%/:?#@!$&'()*+,;=~"))
    address = f"{uri.partition('://')[0].lower()}://{server}{slash}{path}"
    request = urllib.request.Request(address, headers={"User-Agent": "self-training-engine"})
    deadline = time.monotonic() + MAX_SECONDS
    body = bytearray()
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        while part := response.read1(CHUNK):
            body += part
            if len(body) > MAX_DOWNLOAD or time.monotonic() > deadline:
                raise ValueError(f"{uri}: more than {MAX_DOWNLOAD} bytes or {MAX_SECONDS} s")
        if response.length:  # what the server promised and did not send
            raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)
