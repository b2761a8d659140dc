"""What people label with today, on the same images and weights: a DataLoader loop, Ray Data's documented pattern, Daft.

Each yields the images of a batch when their answers are there; `timed` makes rates of it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.models.checkpoint import load
from engine.predict.backends import Norm
from tests.benchmarks.cpu_seconds import cpu_seconds

BATCH = 64


@dataclass(frozen=True)
class Rate:
    """Images/s from the first answer on (`steady`) and from the call on (`whole`); CPU seconds of 1000 images from the first answer on."""

    steady: float
    whole: float
    cpu: float

    def record(self) -> dict[str, float]:
        return asdict(self)


def timed(batches: Callable[[], Iterator[int]]) -> Rate:
    """The rate of a rival."""
    with cpu_seconds() as curve:
        began, first, count, early = time.time(), 0.0, 0, 0
        for images in batches():
            count += images
            if not first:
                first, early = time.time(), count
        ended = time.time()
    later = max(1, count - early)
    return Rate(later / (ended - first), count / (ended - began), 1000 * curve.between(first, ended) / later)


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """What people write first: Pillow, resize, tensor."""

    def __init__(self, folder: Path, size: int) -> None:
        self.paths, self.size = sorted(folder.iterdir()), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            small = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def dataloader(files: Path, teacher: Path, workers: int) -> Iterator[int]:
    """DataLoader with worker processes and the eager model on all cores."""
    loaded = load(teacher)
    normalise = Norm(loaded.mean, loaded.std)
    torch.set_num_threads(workers)
    loader = torch.utils.data.DataLoader(Files(files, loaded.img_size), batch_size=BATCH, num_workers=workers)
    with torch.inference_mode():
        for batch in loader:
            loaded.model(normalise(batch)).softmax(1).topk(8)
            yield len(batch)


class Infer:
    """The actor, or the user's function, that holds the model."""

    def __init__(self, teacher: Path) -> None:
        torch.set_num_threads(1)
        self.loaded = load(teacher)
        self.normalise = Norm(self.loaded.mean, self.loaded.std)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`image` uint8 (N, 3, S, S)."""
        with torch.inference_mode():
            logits = self.loaded.model(self.normalise(torch.from_numpy(batch["image"])))
        scores, classes = logits.softmax(1).topk(8)
        return {"scores": scores.numpy(), "classes": classes.numpy()}


def ray_data(files: Path, teacher: Path, workers: int) -> Iterator[int]:
    """`read_images` -> `map` -> `map_batches(actor)`, as Ray Data's guide to batch inference has it."""
    import ray

    size = load(teacher).img_size

    def shrink(row: dict[str, Any]) -> dict[str, Any]:
        image = Image.fromarray(row["image"]).resize((size, size), Image.Resampling.BILINEAR)
        return {"image": np.asarray(image).transpose(2, 0, 1)}

    images = ray.data.read_images(str(files), mode="RGB").map(shrink)
    labelled = images.map_batches(
        Infer,
        fn_constructor_args=(teacher,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=0.5,  # whole CPUs would leave none to read with
    )
    for batch in labelled.iter_batches(batch_size=BATCH):
        yield len(batch["scores"])


def daft(pool: Path, teacher: Path, workers: int) -> Iterator[int]:
    """Daft's guide to image inference: `read_parquet` -> decode -> resize -> a class UDF, on its native runner."""
    import daft as df

    df.set_runner_native()  # it would take the cluster that another contestant has started
    infer, size = Infer(teacher), load(teacher).img_size
    torch.set_num_threads(workers)

    @df.func.batch(return_dtype=df.DataType.python(), batch_size=BATCH)
    def label(images: Any) -> list[Any]:
        pixels = np.stack([np.asarray(image) for image in images.to_pylist()]).transpose(0, 3, 1, 2)
        return list(infer({"image": pixels})["scores"])

    frame = df.read_parquet(str(pool)).select("image")
    image = df.col("image").decode_image(mode="RGB").resize(size, size)
    for part in frame.select(label(image).alias("scores")).iter_partitions():
        yield len(part)
