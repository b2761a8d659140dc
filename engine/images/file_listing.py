"""Finding the files of a collection: once, folder by folder, with progress."""

import posixpath
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from engine.ground import storage

Progress = Callable[[int], None]
"""Told now and then how many files or images have been found so far."""

LISTING_THREADS = 16
"""Requests in flight while listing: an object store answers one in tens of milliseconds, whatever the size of the
answer."""

FOUND = pa.schema([("path", pa.string()), ("bytes", pa.int64())])


@dataclass(frozen=True)
class Location:
    """Where a collection stands: paths of the manifest are relative to `root`."""

    fs: storage.FileSystem
    root: str
    file: str | None = None
    """Name of the one file when the URI names a file, else None."""

    def path(self, relative: str) -> str:
        return posixpath.join(self.root, relative)


def locate(uri: str) -> Location:
    """The place `uri` names. Raises ValueError when nothing is there."""
    fs, path = storage.resolve(uri)
    try:
        kind = fs.get_file_info(path).type
    except OSError as error:
        raise ValueError(f"{without_credentials(uri)}: cannot be reached: {error}") from None
    if kind == pafs.FileType.NotFound:
        raise ValueError(
            f"{without_credentials(uri)}: no such file or folder; check the path, or the bucket and its credentials"
        )
    if kind == pafs.FileType.Directory:
        return Location(fs, path.rstrip("/") or "/")
    return Location(fs, posixpath.dirname(path), posixpath.basename(path))


def without_credentials(uri: str) -> str:
    """`uri` without user name and password, fit for messages and files."""
    scheme, mark, rest = uri.partition("://")
    authority, slash, path = rest.partition("/")
    return scheme + mark + authority.rpartition("@")[2] + slash + path if mark else uri


def list_image_files(place: Location, progress: Progress | None = None) -> tuple[pa.Table, list[str]]:
    """Every visible file below the place as a table of FOUND sorted by path, and the names of the visible folders
    directly below the root.

    The first level is listed alone and each of its folders by one recursive request stream, many at a time: progress is
    seen, and the Python objects of one folder are let go before the next comes. Whatever has a name beginning with a
    dot, or stands below such a folder, is hidden.
    """
    if place.file is not None:
        size = place.fs.get_file_info(place.path(place.file)).size
        return pa.table([[place.file], [size]], schema=FOUND), []
    top = place.fs.get_file_info(pafs.FileSelector(place.root))
    folders = sorted(i.base_name for i in top if i.type == pafs.FileType.Directory and not i.base_name.startswith("."))
    tables = [_found(top, place.root)]
    count = tables[0].num_rows
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for table in pool.map(lambda name: _below(place, name), folders):
            tables.append(table)
            count += table.num_rows
            if progress:
                progress(count)
    return pa.concat_tables(tables).combine_chunks().sort_by("path"), folders


def _below(place: Location, folder: str) -> pa.Table:
    selector = pafs.FileSelector(place.path(folder), recursive=True)
    return _found(place.fs.get_file_info(selector), place.root)


def _found(infos: list[pafs.FileInfo], root: str) -> pa.Table:
    cut = len(root.rstrip("/")) + 1
    files = [(info.path[cut:], info.size) for info in infos if info.type == pafs.FileType.File]
    table = pa.table([[path for path, _ in files], [size for _, size in files]], schema=FOUND)
    return table.filter(pc.invert(pc.match_substring_regex(table["path"], r"(^|/)\.")))


def having(found: pa.Table, extensions: tuple[str, ...]) -> pa.Table:
    """The rows of `found` whose file name ends in one of `extensions` (with dot, lower case), whatever the case."""
    if not found.num_rows:
        return found
    lower = pc.utf8_lower(found["path"])
    mask = pc.ends_with(lower, extensions[0])
    for extension in extensions[1:]:
        mask = pc.or_(mask, pc.ends_with(lower, extension))
    return found.filter(mask)
