"""WebDataset tars, indexed once: the offset of each image, so that any member is one ranged read afterwards."""

import json
import posixpath
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from engine.images.columns import LABEL_NAMES
from engine.images.file_listing import LISTING_THREADS, Location, Progress
from engine.images.loose import EXTENSIONS, ITEMS

LABEL_EXTENSIONS = ("cls", "json", "txt")
"""Extensions of members that may hold the label of a sample, in order of precedence."""

MAX_LABEL_BYTES = 64 * 1024


def index(location: Location, tars: list[str], label: str | None, progress: Progress | None) -> list[pa.Table]:
    """ITEMS of each tar: key `<tar>/<member>`, path `<tar>#<offset of its bytes>`."""
    tables: list[pa.Table] = []
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for table in pool.map(lambda path: members(location, path, label), tars):
            tables.append(table)
            if progress:
                progress(sum(t.num_rows for t in tables))
    return tables


def members(location: Location, path: str, label: str | None = None) -> pa.Table:
    """ITEMS of one tar. Members of one sample share the name up to the first dot; its label is in `.cls`, a `.json` field
    or `.txt`.

    Raises ValueError for a damaged or compressed tar.
    """
    images: list[tuple[str, str, int, str]] = []
    labels: dict[str, tuple[int, str]] = {}
    local = isinstance(location.fs, pafs.LocalFileSystem)
    try:
        # A remote tar is streamed: a request per header would cost more than the bytes between the headers.
        source = (
            location.fs.open_input_file(location.path(path))
            if local
            else location.fs.open_input_stream(location.path(path))
        )
        with source, tarfile.open(fileobj=source, mode="r:" if local else "r|") as tar:
            for member in tar:
                folder, name = posixpath.split(member.name)
                stem, _, extension = name.partition(".")
                if not member.isfile() or not stem:
                    continue
                sample = posixpath.join(folder, stem)
                if f".{extension.lower()}" in EXTENSIONS:
                    images.append((member.name, f"{path}#{member.offset_data}", member.size, sample))
                elif extension in LABEL_EXTENSIONS and member.size <= MAX_LABEL_BYTES:
                    precedence = LABEL_EXTENSIONS.index(extension)
                    file = tar.extractfile(member)
                    text = _label(file.read() if file else b"", extension, label)
                    if text is not None and precedence <= labels.get(sample, (precedence, ""))[0]:
                        labels[sample] = (precedence, text)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a readable tar ({error}). Decompress compressed tars to plain .tar.") from None
    return pa.table(
        [
            [f"{path}/{name}" for name, *_ in images],
            [at for _, at, *_ in images],
            [size for _, _, size, _ in images],
            [labels[sample][1] if sample in labels else None for *_, sample in images],
        ],
        schema=ITEMS,
    )


def _label(data: bytes, extension: str, field: str | None) -> str | None:
    """The class name in the bytes of a member, or None."""
    text = data.decode("utf-8", errors="replace").strip()
    if extension != "json":
        return text if text and "\n" not in text else None
    try:
        tree: Any = json.loads(text)
    except ValueError:
        return None
    if not isinstance(tree, dict):
        return None
    name = field if field is not None else next((name for name in LABEL_NAMES if name in tree), "")
    value = tree.get(name)
    return str(value) if isinstance(value, str | int) else None
