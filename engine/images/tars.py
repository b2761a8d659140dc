"""WebDataset tars, indexed once: where in its tar each image lies, so that any member is one ranged read afterwards."""

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
"""Members that may hold a sample's label, the strongest first."""

MAX_LABEL_BYTES = 64 * 1024


def index(place: Location, tars: list[str], label: str | None, progress: Progress | None) -> list[pa.Table]:
    """A table of ITEMS of each tar: key `<tar>/<member>`, path `<tar>#<offset of its bytes>`."""
    tables: list[pa.Table] = []
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        for table in pool.map(lambda path: members(place, path, label), tars):
            tables.append(table)
            if progress:
                progress(sum(t.num_rows for t in tables))
    return tables


def members(place: Location, path: str, label: str | None = None) -> pa.Table:
    """ITEMS of one tar. Members of one sample share the name up to its first dot; its label is in `.cls`, a `.json`
    field or `.txt`.

    Raises ValueError naming the tar when it is damaged or compressed.
    """
    images: list[tuple[str, str, int, str]] = []
    labels: dict[str, tuple[int, str]] = {}
    local = isinstance(place.fs, pafs.LocalFileSystem)
    try:
        # A remote tar is streamed: a request for each of its headers would cost more than the bytes between them.
        source = place.fs.open_input_file(place.path(path)) if local else place.fs.open_input_stream(place.path(path))
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
                    strength = LABEL_EXTENSIONS.index(extension)
                    file = tar.extractfile(member)
                    text = _label(file.read() if file else b"", extension, label)
                    if text is not None and strength <= labels.get(sample, (strength, ""))[0]:
                        labels[sample] = (strength, text)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{path}: not a readable tar ({error}); compressed tars cannot be addressed, unpack them to plain .tar"
        ) from None
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
    """The class name in a member's bytes; None when there is none."""
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
