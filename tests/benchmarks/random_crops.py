"""Random resized crops: a stream's images per second against torchvision's transform on Pillow, interleaved, on the same threads.

    python -m tests.benchmarks.random_crops [--images 256] [--rounds 5]

Both decode 500 x 375 JPEGs and give one 224-pixel crop of 8 to 100 % of each; streamed (nothing kept) and from the cache of whole pictures.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from engine.fit.shards import threads
from engine.gather.training_set import TrainingSet, TrainingShard
from engine.images.crops import RandomCrop
from engine.tables import schema
from tests.fit.sets import open_stream
from tests.images.making import jpeg

SIZE, SCALE, CLASSES_HASH = 224, (0.08, 1.0), "0" * 16


def write(folder: Path, images: int) -> tuple[TrainingSet, list[bytes]]:
    data = [jpeg(seed, 500, 375) for seed in range(images)]
    columns = {
        "key": [str(n) for n in range(images)],
        "image": data,
        "classes": [[0]] * images,
        "weights": [[1.0]] * images,
        "count": [1] * images,
    }
    wanted = schema.training(2, CLASSES_HASH)
    columns |= {name: [0] * images for name in wanted.names if name not in columns}
    pq.write_table(pa.table(columns, schema=wanted), folder / "part-0.parquet", row_group_size=32)
    size = (folder / "part-0.parquet").stat().st_size
    return TrainingSet(str(folder), (TrainingShard("part-0.parquet", images, images, size),), 2, CLASSES_HASH), data


def rival(data: list[bytes], pool: ThreadPoolExecutor) -> Callable[[int], object]:
    """One batch as torchvision's ImageFolder gives it: Pillow decodes, crops and resizes, in the same number of threads."""
    transform = RandomResizedCrop(SIZE, SCALE)

    def one(encoded: bytes) -> torch.Tensor:
        picture = transform(Image.open(io.BytesIO(encoded)).convert("RGB"))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)

    return lambda _: torch.stack(list(pool.map(one, data)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="images per batch")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    options = parser.parse_args()
    torch.set_num_threads(1)  # both sides are parallel over images
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads()) as pool:
        training_set, data = write(Path(folder), options.images)
        crops = (RandomCrop(SIZE, SCALE),)
        common = {"batch_size": options.images, "seed": 0, "size": SIZE, "crops": crops}
        contestants: dict[str, Callable[[int], object]] = {
            "torchvision": rival(data, pool),
            "streamed": open_stream("s", training_set, cache_bytes=0, **common).batch,
            "cached": open_stream("s", training_set, cache_bytes=2**31, **common).batch,
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(options.rounds + 1):
            for name, batch in contestants.items():
                started = time.perf_counter()
                batch(number)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
    for name, taken in seconds.items():
        ratio = np.median(np.array(seconds["torchvision"]) / np.array(taken))
        print(f"{name:12} {options.images / np.median(taken):8.0f} images/s, {ratio:.2f} x torchvision")


if __name__ == "__main__":
    main()
