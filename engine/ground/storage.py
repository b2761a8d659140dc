"""Files on any pyarrow filesystem: a local path, `s3://…`, `gs://…` or another URI that Arrow knows.

Objects appear whole or not at all: object stores publish an object when its stream closes, and on a local disk a file is written beside its place
and renamed into it.
"""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

import pyarrow.fs as pafs

FileSystem: TypeAlias = pafs.FileSystem

WITHOUT_FOLDERS = ("s3", "gcs", "abfs")
"""Object stores: a folder there is a part of names, and making one costs a request for each of its parents."""


def absolute(uri: str) -> str:
    """`uri` as any process may use it: workers do not share the working directory of the driver."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def resolve(uri: str) -> tuple[FileSystem, str]:
    """The filesystem of `uri` and the path inside it. Relative local paths are made absolute."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), absolute(uri)
    try:
        return pafs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        raise ValueError(f"{uri}: not a path or URI that can be opened: {error}") from None


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts appended, keeping a query such as `?endpoint_override=…` at the end."""
    base, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return "/".join([base.rstrip("/"), *parts]) + mark + query


PAUSES = (0.5, 2.0, 8.0)
"""Seconds between attempts at what may be a bad moment of an object store: its client asks again by itself, but not after an answer broke off."""

CLOUDS = ("AWS Error", "google::cloud::Status", "Azure")
"""How the errors of object stores begin or are named."""

LASTING = ("ACCESS_DENIED", "NO_SUCH", "NOT_FOUND", "PERMISSION_DENIED")

Result = TypeVar("Result")


def passing(error: BaseException) -> bool:
    """Whether an error is an object store's and may be over in a moment."""
    text = str(error)
    lasting = isinstance(error, FileNotFoundError | PermissionError) or any(word in text for word in LASTING)
    return isinstance(error, OSError) and not lasting and any(name in text for name in CLOUDS)


def _patiently(attempt: Callable[[], Result]) -> Result:
    for pause in PAUSES:
        try:
            return attempt()
        except OSError as error:
            if not passing(error):
                raise
        time.sleep(pause)
    return attempt()


def put(fs: FileSystem, path: str, data: bytes | memoryview) -> None:
    """Write `data` so that readers see all of it or nothing."""
    if fs.type_name not in WITHOUT_FOLDERS:
        fs.create_dir(os.path.dirname(path), recursive=True)
    if not isinstance(fs, pafs.LocalFileSystem):
        _patiently(lambda: _write(fs, path, data))
        return
    beside = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _write(fs: FileSystem, path: str, data: bytes | memoryview) -> None:
    with fs.open_output_stream(path) as stream:
        stream.write(data)


def get(fs: FileSystem, path: str) -> bytes:
    """The whole of a file. Raises FileNotFoundError."""
    return _patiently(lambda: _read(fs, path))


def _read(fs: FileSystem, path: str) -> bytes:
    with fs.open_input_stream(path) as stream:
        return stream.read()


def exists(fs: FileSystem, path: str) -> bool:
    """Whether a file or folder stands at `path`."""
    return _patiently(lambda: fs.get_file_info(path)).type != pafs.FileType.NotFound


def names(fs: FileSystem, folder: str) -> list[str]:
    """Sorted names of the finished files directly inside `folder`; none when it does not exist."""
    infos = _patiently(lambda: fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True)))
    return sorted(
        info.base_name for info in infos if info.type == pafs.FileType.File and not info.base_name.endswith(".tmp")
    )


def folders(fs: FileSystem, folder: str) -> list[str]:
    """Sorted names of the folders directly inside `folder`; none when it does not exist."""
    infos = _patiently(lambda: fs.get_file_info(pafs.FileSelector(folder, allow_not_found=True)))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)
