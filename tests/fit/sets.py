"""Small training sets on disk, as `gather` would have made them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from engine.fit.pool_stream import PoolSource
from engine.fit.streams import Stream, StreamSpec, open_gathered
from engine.gather.training_set import TrainingSet, TrainingShard
from engine.images.decode import Frame
from engine.settings.fit import FitSettings
from engine.settings.model import ModelSettings
from engine.tables import schema

NUM_CLASSES = 4
HASH = "0" * 16
MODEL = ModelSettings(model="resnet8_cifar", img_size=8, drop=0.1)


def fit_settings(**changes: object) -> FitSettings:
    defaults = {"steps": 20, "batch": {"labelled": 8}, "lr": 0.05, "log_every": 5, "checkpoint_every": 10}
    return FitSettings.model_validate({**defaults, **changes})


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) or (H, W), losslessly encoded."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_set(
    folder: Path,
    rows: Sequence[int] = (12,),
    *,
    counts: Sequence[int] | None = None,
    size: int = 8,
    group: int = 4,
    soft: bool = False,
    masks: bool = False,
    seed: int = 0,
) -> TrainingSet:
    """A set of shards with `rows` rows each. Image n of the set is class n % 4, its first pixel says n, its rest is noise around the class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    all_counts = np.ones(sum(rows), np.int32) if counts is None else np.array(counts, np.int32)
    shards, start = [], 0
    for number, length in enumerate(rows):
        ids = np.arange(start, start + length)
        images, mask_images = [], []
        for n in ids:
            pixels = np.full((size, size, 3), 60 * (n % NUM_CLASSES), np.int64) + rng.integers(-20, 20, (size, size, 3))
            pixels = pixels.clip(0, 255).astype(np.uint8)
            pixels[0, 0] = (n // 256, n % 256, 0)
            images.append(png(pixels))
            mask_images.append(png((pixels[:, :, 0] > 100).astype(np.uint8)))
        weights = rng.dirichlet(np.ones(3), length) * 0.9 if soft else np.ones((length, 1))
        classes = np.stack([(ids + k) % NUM_CLASSES for k in range(weights.shape[1])], 1)
        columns = {
            "shard": [number] * length,
            "row": list(range(length)),
            "key": [f"image-{n}" for n in ids],
            "image": images,
            "classes": classes.tolist(),
            "weights": weights.tolist(),
            "count": all_counts[ids],
        }
        if masks:
            columns["mask"] = mask_images
        path = folder / f"part-{number}.parquet"
        pq.write_table(
            pa.table(columns, schema=schema.training(NUM_CLASSES, HASH, mask=masks)), path, row_group_size=group
        )
        shards.append(TrainingShard(path.name, length, int(all_counts[ids].sum()), path.stat().st_size))
        start += length
    return TrainingSet(str(folder), tuple(shards), NUM_CLASSES, HASH)


def open_stream(name: str, source: TrainingSet | PoolSource, size: int = 8, **spec: Any) -> Stream:
    """The stream `name` of a source in a frame of `size` pixels; `spec`: the other fields of StreamSpec."""
    wanted = StreamSpec(name, **{"frame": Frame(size), **spec})
    return open_gathered(source, wanted) if isinstance(source, TrainingSet) else source.open(wanted)
