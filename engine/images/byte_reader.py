"""The bytes of loose images: files, members of tars, and URIs of any scheme. One that cannot be had is null, not an
exception."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from engine.ground import storage
from engine.images.file_listing import Location
from engine.tables import schema

READING_THREADS = 16
"""Remote images in flight in one reader."""

TIMEOUT = 30.0
"""Seconds that a web server may stay silent."""

MAX_DOWNLOAD = 256 * 2**20
"""Bytes taken from a web server at most: what it sends is not in our hands."""

PAUSES = (0.2, 1.0)
"""Seconds between attempts at what may be a passing failure."""

T = TypeVar("T")


class FileReader:
    """Reads images of schema.FILES; `kind` is the listing's."""

    def __init__(self, place: Location, kind: str) -> None:
        self.place, self.kind = place, kind
        self._remote: dict[str, storage.FileSystem] = {}

    def read(self, files: pa.Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Record batches of schema.IMAGES of rows of schema.FILES, in their order; `image` is null where the bytes
        cannot be had."""
        fetch: Callable[[str, int], bytes | None]
        if self.kind == "webdataset" and files.num_rows:
            path = files["path"][0].as_py().rpartition("#")[0]
            fetch = _Tar(self.place, path).member
        else:
            fetch = self.uri if self.kind == "uris" else lambda path, _: whole(self.place.fs, self.place.path(path))
        near = isinstance(self.place.fs, pafs.LocalFileSystem) and self.kind != "uris"
        with ThreadPoolExecutor(1 if near else READING_THREADS) as pool:
            for start in range(0, files.num_rows, batch_rows):
                part = files.slice(start, batch_rows).combine_chunks()
                images = (map if near else pool.map)(fetch, part["path"].to_pylist(), part["bytes"].to_pylist())
                columns = [part["row"], part["key"], pa.array(images, pa.binary()), part["label"]]
                arrays = [one.combine_chunks() if isinstance(one, pa.ChunkedArray) else one for one in columns]
                yield pa.record_batch(arrays, schema=schema.IMAGES)

    def uri(self, uri: str, size: int | None = None) -> bytes | None:  # noqa: ARG002 - the shape of a fetch
        """The bytes at an absolute URI, or at a path relative to the collection; None when they cannot be had."""
        scheme, mark, rest = uri.partition("://")
        if not mark:
            return (
                whole(self.place.fs, self.place.path(uri))
                if not uri.startswith("/")
                else whole(pafs.LocalFileSystem(), uri)
            )
        if scheme in ("http", "https"):
            return _patiently(lambda: _download(uri))
        bucket = rest.partition("/")[0]
        if scheme == self.place.fs.type_name and "?" not in rest:  # the collection's own store: its credentials serve
            return whole(self.place.fs, rest)
        if (name := f"{scheme}://{bucket}?{rest.partition('?')[2]}") not in self._remote:
            try:
                self._remote[name] = storage.resolve(uri)[0]
            except ValueError:
                return None
        return whole(self._remote[name], "/" + rest if scheme == "file" else rest.partition("?")[0].rpartition("@")[2])


class _Tar:
    """One tar, opened when the first member is wanted."""

    def __init__(self, place: Location, path: str) -> None:
        self.path = path
        try:
            self.file = place.fs.open_input_file(place.path(path))
        except OSError as error:
            raise ValueError(
                f"{path}: tar cannot be opened ({error}); restore it, or list the collection again"
            ) from None

    def member(self, path: str, size: int) -> bytes | None:
        return _patiently(lambda: self.file.read_at(size, int(path.rpartition("#")[2])))


def whole(fs: storage.FileSystem, path: str) -> bytes | None:
    """A whole file, or None when it cannot be had."""
    return _patiently(lambda: storage.get(fs, path))


def _patiently(read: Callable[[], T]) -> T | None:
    """The result of `read`, tried again after a failure that may pass; None when it does not."""
    for pause in (*PAUSES, None):
        try:
            return read()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            return None
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                return None
        except (OSError, ValueError):
            pass
        if pause is not None:
            time.sleep(pause)
    return None


def _download(uri: str) -> bytes:
    request = urllib.request.Request(uri, headers={"User-Agent": "self-training-engine"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        return response.read(MAX_DOWNLOAD)
