"""Files on any pyarrow filesystem: a local path, `s3://…`, `gs://…` or another URI that Arrow knows.

Writes are atomic: an object store publishes an object when its stream closes, and on a local disk a temporary file is written and renamed.
"""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar
from urllib.parse import unquote

import pyarrow.fs as pafs

from engine.ground.uri import STORES, Uri, split_uri, without_credentials

FileSystem: TypeAlias = pafs.FileSystem

WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
"""Object stores: folders are prefixes of names, and creating one costs a request per parent."""


def absolute(uri: str) -> str:
    """`uri` with a local path made absolute: workers do not share the working directory of the driver."""
    return uri if split_uri(uri).scheme else str(Path(uri).expanduser().absolute())


def resolve(uri: str) -> tuple[FileSystem, str]:
    """The filesystem of `uri` and the path inside it. Relative local paths are made absolute, `%20` in a URI is a blank."""
    parts = split_uri(uri)
    if not parts.scheme:
        return pafs.LocalFileSystem(), absolute(uri)
    fs, root = open_root(parts)
    path = parts.decoded if parts.scheme == "file" else f"{root}/{unquote(parts.path)}".rstrip("/")
    return fs, path.lstrip("/") if parts.scheme in STORES else path


def open_root(parts: Uri) -> tuple[FileSystem, str]:
    """The filesystem of a URI, and the path of its bucket inside it. Raises ValueError."""
    if parts.scheme == "file" and parts.authority in ("", "localhost"):
        return pafs.LocalFileSystem(), ""
    try:
        fs, root = pafs.FileSystem.from_uri(parts.root)
    except (OSError, ValueError) as error:
        shown = without_credentials(parts.root)
        why = str(error).replace(parts.root, shown)
        raise ValueError(f"{shown}: cannot be opened as a path or URI: {why}") from None
    return fs, root.rstrip("/")


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended, keeping a query such as `?endpoint_override=…` at the end."""
    base, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return "/".join([base.rstrip("/"), *parts]) + mark + query


PAUSES = (0.5, 2.0, 8.0)
"""Seconds between attempts after a transient error of an object store: its client retries requests, but not an interrupted response."""

CLOUDS = ("AWS Error", "google::cloud::Status", "Azure")
"""Text by which the errors of object stores are recognised."""

PERMANENT = ("ACCESS_DENIED", "NO_SUCH", "NOT_FOUND", "PERMISSION_DENIED")

Result = TypeVar("Result")


def is_transient(error: BaseException) -> bool:
    """Whether an error comes from an object store and may pass when the request is repeated."""
    text = str(error)
    permanent = isinstance(error, FileNotFoundError | PermissionError) or any(word in text for word in PERMANENT)
    return isinstance(error, OSError) and not permanent and any(name in text for name in CLOUDS)


def _with_retries(attempt: Callable[[], Result]) -> Result:
    for pause in PAUSES:
        try:
            return attempt()
        except OSError as error:
            if not is_transient(error):
                raise
        time.sleep(pause)
    return attempt()


def put(fs: FileSystem, path: str, data: bytes | memoryview) -> None:
    """Write `data` atomically."""
    if fs.type_name not in WITHOUT_FOLDERS:
        fs.create_dir(os.path.dirname(path), recursive=True)
    if not isinstance(fs, pafs.LocalFileSystem):
        _with_retries(lambda: _write(fs, path, data))
        return
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _write(fs: FileSystem, path: str, data: bytes | memoryview) -> None:
    with fs.open_output_stream(path) as stream:
        stream.write(data)


def get(fs: FileSystem, path: str) -> bytes:
    """The contents of a file. Raises FileNotFoundError."""
    return _with_retries(lambda: _read(fs, path))


def _read(fs: FileSystem, path: str) -> bytes:
    with fs.open_input_stream(path) as stream:
        return stream.read()


def exists(fs: FileSystem, path: str) -> bool:
    """Whether `path` is a file or folder."""
    return _with_retries(lambda: fs.get_file_info(path)).type != pafs.FileType.NotFound


def names(fs: FileSystem, folder: str) -> list[str]:
    """Sorted names of the complete files directly inside `folder`; empty when it does not exist."""
    infos = _with_retries(lambda: fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True)))
    return sorted(
        info.base_name for info in infos if info.type == pafs.FileType.File and not info.base_name.endswith(".tmp")
    )


def folders(fs: FileSystem, folder: str) -> list[str]:
    """Sorted names of the folders directly inside `folder`; empty when it does not exist."""
    infos = _with_retries(lambda: fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True)))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)
