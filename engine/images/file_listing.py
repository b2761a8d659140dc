"""List the files of a collection, folder by folder, with progress."""

import posixpath
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from engine.ground import storage
from engine.settings.credentials import hide_credentials

Progress = Callable[[int], None]
"""Called repeatedly with the number of files or images found so far."""

LISTING_THREADS = 16
"""Concurrent requests while listing: an object store needs tens of milliseconds for each, whatever the size of the
response."""

FOUND = pa.schema([("path", pa.string()), ("bytes", pa.int64())])


@dataclass(frozen=True)
class Location:
    """Location of a collection: paths of the manifest are relative to `root`."""

    fs: storage.FileSystem
    root: str
    file: str | None = None
    """Name of the file if the URI is that of a file, else None."""

    def path(self, relative: str) -> str:
        return posixpath.join(self.root, relative)


def locate(uri: str) -> Location:
    """The location of `uri`. Raises ValueError when it does not exist or cannot be reached."""
    fs, path = storage.resolve(uri)
    try:
        kind = fs.get_file_info(path).type
    except OSError as error:
        raise ValueError(f"{without_credentials(uri)}: cannot be reached: {error}") from None
    if kind == pafs.FileType.NotFound:
        raise ValueError(
            f"{without_credentials(uri)}: no such file or folder. Check the path, or the bucket and its credentials."
        )
    if kind == pafs.FileType.Directory:
        return Location(fs, path.rstrip("/") or "/")
    return Location(fs, posixpath.dirname(path), posixpath.basename(path))


def without_credentials(uri: str) -> str:
    """`uri` without user name, password, tokens and signatures, for messages and files."""
    return hide_credentials(uri) if "://" in uri else uri


def list_image_files(location: Location, progress: Progress | None = None) -> tuple[pa.Table, list[str]]:
    """Every visible file below the location as a table of FOUND sorted by path, and the names of the visible folders
    directly below the root.

    The first level is listed by itself, then each of its folders recursively and concurrently: progress is visible, and
    the Python objects of one folder are freed before the next. Names that begin with a dot are hidden, with everything
    below them.
    """
    if location.file is not None:
        size = location.fs.get_file_info(location.path(location.file)).size
        return pa.table([[location.file], [size]], schema=FOUND), []
    top = location.fs.get_file_info(pafs.FileSelector(location.root))
    folders = sorted(i.base_name for i in top if i.type == pafs.FileType.Directory and not i.base_name.startswith("."))
    tables = [_found(top, location.root)]
    count = tables[0].num_rows
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for table in pool.map(lambda name: _below(location, name), folders):
            tables.append(table)
            count += table.num_rows
            if progress:
                progress(count)
    return pa.concat_tables(tables).combine_chunks().sort_by("path"), folders


def _below(location: Location, folder: str) -> pa.Table:
    selector = pafs.FileSelector(location.path(folder), recursive=True)
    return _found(location.fs.get_file_info(selector), location.root)


def _found(infos: list[pafs.FileInfo], root: str) -> pa.Table:
    prefix = len(root.rstrip("/")) + 1
    files = [(info.path[prefix:], info.size) for info in infos if info.type == pafs.FileType.File]
    table = pa.table([[path for path, _ in files], [size for _, size in files]], schema=FOUND)
    return table.filter(pc.invert(pc.match_substring_regex(table["path"], r"(^|/)\.")))


def with_extension(found: pa.Table, extensions: tuple[str, ...]) -> pa.Table:
    """The rows of `found` with a file name that ends in one of `extensions` (lower case, with dot), ignoring case."""
    if not found.num_rows:
        return found
    lower = pc.utf8_lower(found["path"])
    mask = pc.ends_with(lower, extensions[0])
    for extension in extensions[1:]:
        mask = pc.or_(mask, pc.ends_with(lower, extension))
    return found.filter(mask)
