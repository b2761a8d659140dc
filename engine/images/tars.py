"""WebDataset tars, indexed once: the offset of each image, so that any member is one ranged read afterwards."""

import json
import posixpath
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from engine.ground.encodings import composed, encoding_of
from engine.images import formats
from engine.images.columns import LABEL_NAMES, Labelling
from engine.images.file_listing import LISTING_THREADS, SYSTEM, Location, Progress
from engine.images.formats import split_member
from engine.images.loose import ITEMS

LABEL_EXTENSIONS = (".cls", ".json", ".txt")
"""Endings of members that may hold the label of a sample, in order of precedence."""

MAX_LABEL_BYTES = 64 * 1024


@dataclass
class Members:
    """The images of a tar, the number of its members with a label, and of those that were ignored, by reason."""

    items: pa.Table
    labels: int
    ignored: Counter[str]


def index(location: Location, tars: pa.Table, how: Labelling, progress: Progress | None) -> list[Members]:
    """The members of each tar of FOUND: key `<tar>/<member>`, path `<tar>#<offset of its bytes>`."""
    every: list[Members] = []
    pairs = zip(tars["path"].to_pylist(), tars["bytes"].to_pylist(), strict=True)
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for one in pool.map(lambda pair: members(location, pair[0], pair[1], how), pairs):
            every.append(one)
            if progress:
                progress(sum(one.items.num_rows for one in every))
    return every


def members(location: Location, path: str, size: int, how: Labelling) -> Members:
    """The members of one tar of `size` bytes. Those of one sample share the name up to the ending (`formats.split_member`); its label is in `.cls`,
    a `.json` field or `.txt`. A link is the member that it names.

    Raises ValueError for a compressed tar and for one that is damaged from its beginning.
    """
    reader = _Reader(path, size, how)
    local = isinstance(location.fs, pafs.LocalFileSystem)
    try:
        # A remote tar is streamed: a request per header would cost more than the bytes between the headers.
        source = (
            location.fs.open_input_file(location.path(path))
            if local
            else location.fs.open_input_stream(location.path(path))
        )
        with (
            source,
            tarfile.open(fileobj=source, mode="r:" if local else "r|", encoding=how.encoding or "utf-8") as tar,
        ):
            for member in tar:
                reader.add(tar, member)
                if member.size < 0:  # the next header would be one that was read before
                    raise tarfile.ReadError("negative size")
        if _has_rest(location, path, tar.offset, size):
            reader.ignored[DAMAGED] += 1
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError) as error:
        if not reader.seen:
            raise ValueError(
                f"{path}: not a readable tar ({error}). Decompress compressed tars to plain .tar."
            ) from None
        reader.ignored[DAMAGED] += 1
    return reader.finish()


DAMAGED = "rest of a damaged tar"

PADDING = 20 * 1024
"""Bytes of zeros that may end a tar; another tar behind them is not read."""


def _has_rest(location: Location, path: str, end: int, size: int) -> bool:
    """Whether there is more after the last member than zeros: `tarfile` ends at a broken header without a word."""
    with location.fs.open_input_file(location.path(path)) as file:
        return end < size and any(file.read_at(min(PADDING, size - end), end))


@dataclass
class _Reader:
    """Sorts the members of one tar."""

    path: str
    size: int
    how: Labelling
    seen: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    images: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, name of the member with its bytes, and sample of each image."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset and size of the bytes of each file, by normal name."""
    labels: dict[str, tuple[int, str]] = field(default_factory=dict)
    used: int = 0

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self.seen += 1
        if member.isdir():
            return
        name = _text(member.name)
        folder, base = posixpath.split(name)
        stem, ending = split_member(base, self.how.extensions, LABEL_EXTENSIONS)
        if reason := self._unusable(member, name, stem):
            self.ignored[reason] += 1
            return
        target = _target(member, folder) or posixpath.normpath(name)
        if member.isreg():
            self.places[target] = (member.offset_data, member.size)
        sample = posixpath.join(folder, stem)
        if ending in self.how.extensions:
            self.images.append((name, target, sample))
        elif ending in LABEL_EXTENSIONS and member.isreg() and member.size <= MAX_LABEL_BYTES:
            self._add_label(tar, member, sample, ending)
        else:
            self.ignored[ending if ending.count(".") > 1 else formats.ending(base)] += 1

    def _unusable(self, member: tarfile.TarInfo, name: str, stem: str) -> str | None:
        if len(name.encode()) > formats.MAX_NAME_BYTES:
            return formats.TOO_LONG
        if not stem or any(part.startswith("._") for part in name.split("/")):
            return "hidden"
        if part := next((part for part in name.split("/")[:-1] if part in SYSTEM), None):
            return f"folder {part}"
        if not (member.isreg() or member.islnk() or member.issym()):
            return "not a file"
        if member.issparse():
            return "sparse file"
        return "impossible size" if member.size < 0 or member.offset_data + member.size > self.size else None

    def _add_label(self, tar: tarfile.TarFile, member: tarfile.TarInfo, sample: str, ending: str) -> None:
        precedence = LABEL_EXTENSIONS.index(ending)
        file = tar.extractfile(member)
        text = _label(file.read() if file else b"", ending, self.how)
        if text is None:
            self.ignored[f"{ending} without a label"] += 1
            return
        self.used += 1
        if precedence <= self.labels.get(sample, (precedence, ""))[0]:
            self.labels[sample] = (precedence, text)

    def finish(self) -> Members:
        whole = [image for image in self.images if image[1] in self.places]
        if links := len(self.images) - len(whole):
            self.ignored["link without its file"] += links
        places = [self.places[target] for _, target, _ in whole]
        columns = [
            [f"{self.path}/{name}" for name, *_ in whole],
            [f"{self.path}#{offset}" for offset, _ in places],
            [size for _, size in places],
            [self.labels[sample][1] if sample in self.labels else None for *_, sample in whole],
        ]
        return Members(pa.table(columns, schema=ITEMS), self.used, self.ignored)


def _target(member: tarfile.TarInfo, folder: str) -> str | None:
    """The normal name of the file that a link names; None for a file."""
    if member.issym():
        return posixpath.normpath(posixpath.join(folder, _text(member.linkname)))
    return posixpath.normpath(_text(member.linkname)) if member.islnk() else None


def _text(name: str) -> str:
    """A name as text: what is not UTF-8 is Latin-1."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode(errors="surrogateescape").decode("latin-1")
    return name


def _label(data: bytes, extension: str, how: Labelling) -> str | None:
    """The class name in the bytes of a member, or None."""
    text = composed(_text(data.decode(encoding_of(data[:4], how.encoding), errors="surrogateescape")).strip())
    if extension != ".json":
        return text if text and "\n" not in text and len(text) <= formats.MAX_NAME_BYTES else None
    try:
        tree: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tree, dict):
        return None
    name = how.field if how.field is not None else next((name for name in LABEL_NAMES if name in tree), "")
    value = tree.get(name)
    return str(value) if isinstance(value, str | int) else None
