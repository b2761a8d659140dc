"""List the files of a collection, folder by folder, with progress."""

import os
import posixpath
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from engine.ground import storage
from engine.ground.uri import without_credentials
from engine.images import globs

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
    pattern: str | None = None
    """Pattern (`globs`) of paths below the root, if the URI has one, else None."""

    def path(self, relative: str) -> str:
        return posixpath.join(self.root, relative)


def locate(uri: str) -> Location:
    """The location of `uri`. Raises ValueError when it does not exist or cannot be reached."""
    fs, path = storage.resolve(uri)
    try:
        kind = fs.get_file_info(path).type
    except OSError as error:
        raise ValueError(f"{without_credentials(uri)}: cannot be reached: {error}") from None
    if kind == pafs.FileType.NotFound and globs.MAGIC.search(path):
        root, pattern = globs.split_root(path)
        if fs.get_file_info(root).type == pafs.FileType.Directory:
            return Location(fs, root, pattern=pattern)
    if kind == pafs.FileType.NotFound:
        raise ValueError(
            f"{without_credentials(uri)}: no such file or folder. Check the path, or the bucket and its credentials."
        )
    if kind == pafs.FileType.Directory:
        return Location(fs, path.rstrip("/") or "/")
    return Location(fs, posixpath.dirname(path), posixpath.basename(path))


@dataclass(frozen=True)
class Found:
    """What lies at a location."""

    files: pa.Table
    """FOUND, sorted by path: every visible file."""
    folders: list[str]
    """Names of the visible folders directly below the root."""
    ignored: Counter[str]
    """Number of files and folders that were not looked at, by reason."""
    is_file: bool = False
    """Whether the URI is that of a file."""


SYSTEM = frozenset(
    [
        "__MACOSX",
        "@eaDir",
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "lost+found",
        "System Volume Information",
        "_temporary",
        "_delta_log",
    ]
)
"""Folders that other programs put among the files: thumbnails, waste, snapshots, unfinished or outdated tables."""


def list_image_files(location: Location, progress: Progress | None = None) -> Found:
    """Every visible file below the location.

    The first level is listed by itself, then each of its folders recursively and concurrently: progress is visible, and
    the Python objects of one folder are freed before the next. Names that begin with a dot are hidden, with everything
    below them, and folders of SYSTEM are.
    """
    if location.file is not None:
        size = location.fs.get_file_info(location.path(location.file)).size
        return Found(pa.table([[location.file], [size]], schema=FOUND), [], Counter(), is_file=True)
    local = isinstance(location.fs, pafs.LocalFileSystem)
    level = _Level(location.root)
    folders = level.scan("", _identity(location.root)) if local else level.select(location.fs, "", recursive=False)
    tables, ignored, count = [level.table()], level.ignored, len(level.paths)

    def below(folder: tuple[str, Identities]) -> _Level:
        inner = _Level(location.root)
        if not local:
            inner.select(location.fs, folder[0], recursive=True)
            return inner
        waiting = [folder]
        while waiting:
            waiting += inner.scan(*waiting.pop())
        return inner

    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for inner in pool.map(below, folders):
            tables.append(inner.table())
            ignored += inner.ignored
            count += len(inner.paths)
            if progress:
                progress(count)
    files = pa.concat_tables(tables).combine_chunks().sort_by("path")
    if location.pattern is not None:
        mask = globs.matching(files["path"].to_pylist(), location.pattern)
        return Found(files.filter(pa.array(mask, pa.bool_())), [], Counter())
    return Found(files, sorted(name for name, _ in folders), ignored)


Identities: TypeAlias = tuple[tuple[int, int], ...]
"""Device and inode of a folder and of those above it, by which a link to one of them is recognised."""


def _identity(path: str) -> Identities:
    status = os.stat(path)
    return ((status.st_dev, status.st_ino),)


class _Level:
    """Files below a folder, and what was ignored there."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.paths: list[str] = []
        self.sizes: list[int] = []
        self.ignored = Counter[str]()

    def table(self) -> pa.Table:
        return pa.table([self.paths, self.sizes], schema=FOUND)

    def scan(self, folder: str, above: Identities) -> list[tuple[str, Identities]]:
        """Take the files of one local folder; its folders, each with the identities above it."""
        folders: list[tuple[str, Identities]] = []
        try:
            entries = list(os.scandir(os.path.join(self.root, folder)))
        except OSError as error:
            raise ValueError(f"{folder or self.root}: folder cannot be listed ({error.strerror})") from None
        for entry in entries:
            path = posixpath.join(folder, entry.name)
            if reason := self._reason(entry, above):
                self.ignored[reason] += 1
            elif entry.is_dir():
                folders.append((path, above + _identity(entry.path)))
            else:
                self.paths.append(path)
                self.sizes.append(entry.stat().st_size)
        return folders

    def _reason(self, entry: os.DirEntry[str], above: Identities) -> str | None:
        is_folder = entry.is_dir()
        if entry.name.startswith("."):
            return "hidden folder" if is_folder else "hidden"
        if any("\ud800" <= char <= "\udfff" for char in entry.name):
            return "name that is not UTF-8"
        if is_folder:
            if entry.name in SYSTEM:
                return f"folder {entry.name}"
            return "link to a folder above" if entry.is_symlink() and _identity(entry.path)[0] in above else None
        if not entry.is_file():
            return "broken link" if entry.is_symlink() else "not a file"
        return None

    def select(self, fs: storage.FileSystem, folder: str, recursive: bool) -> list[tuple[str, Identities]]:
        """Take the files of a folder of any filesystem; its folders unless they were listed with it."""
        selector = pafs.FileSelector(posixpath.join(self.root, folder), recursive=recursive)
        prefix = len(self.root.rstrip("/")) + 1
        folders: list[tuple[str, Identities]] = []
        for info in fs.get_file_info(selector):
            path, is_folder = info.path[prefix:], info.type == pafs.FileType.Directory
            parts = path.split("/")
            reason = next((f"folder {part}" for part in parts if part in SYSTEM), None)
            if any(part.startswith(".") for part in parts):
                reason = "hidden folder" if is_folder else "hidden"
            if is_folder and not recursive and not reason:
                folders.append((path, ()))
            elif info.type == pafs.FileType.File and not reason:
                self.paths.append(path)
                self.sizes.append(info.size)
            elif reason and (not is_folder or not recursive):
                self.ignored[reason] += 1
        return folders


def with_extension(found: pa.Table, extensions: tuple[str, ...]) -> pa.Table:
    """The rows of `found` with a file name that ends in one of `extensions` (lower case, with dot; "" for a name without
    a dot), ignoring case."""
    if not found.num_rows:
        return found
    lower = pc.utf8_lower(found["path"])
    masks = [pc.ends_with(lower, one) if one else pc.match_substring_regex(lower, "(^|/)[^./]+$") for one in extensions]
    return found.filter(reduce(pc.or_, masks))
