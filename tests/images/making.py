"""Small real image files for the tests."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from engine.ground import storage
from engine.images.manifest import Manifest
from engine.images.sources import list_images
from engine.settings.data import SourceSettings


def picture(seed: int = 0, width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def jpeg(seed: int = 0, width: int = 24, height: int = 16) -> bytes:
    return encode(picture(seed, width, height), "JPEG", quality=90)


def folder(root: Path, names: Iterable[str], first: int = 0) -> Path:
    """An image file of its own content at every relative path."""
    for seed, name in enumerate(names, first):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    return root


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def manifest(uri: str | Path, store: Path, labelled: bool = False, **settings: Any) -> Manifest:
    """The collection at `uri`, listed and saved."""
    fs, path = storage.resolve(str(store))
    return Manifest.save(list_images(str(uri), SourceSettings(**settings), labelled=labelled), fs, path)


def everything(manifest: Manifest, batch_rows: int = 256) -> pa.Table:
    """All images in address order, with the shard as a further column."""
    tables = []
    for shard in range(manifest.num_shards):
        table = pa.Table.from_batches(list(manifest.read(shard, batch_rows=batch_rows)))
        tables.append(table.append_column("shard", pa.array([shard] * table.num_rows, pa.int32())))
    return pa.concat_tables(tables)
