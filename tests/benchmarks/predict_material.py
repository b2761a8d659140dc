"""Images and teachers for the labelling benchmarks."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from engine.models.build import build
from engine.models.checkpoint import save
from engine.settings import ModelSettings


def texture(seed: int, width: int = 500, height: int = 375, quality: int = 87) -> bytes:
    """A JPEG of 1/f noise, which is about as hard to decode as a photograph: 60 kB at 500 x 375."""
    random = np.random.default_rng(seed)
    fx, fy = np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    spectrum = 1 / np.maximum(np.hypot(fx, fy), 1 / width)
    shape = (3, *spectrum.shape)
    noise = np.fft.irfft2(spectrum * (random.normal(size=shape) + 1j * random.normal(size=shape)), s=(height, width))
    scaled = 128 + 50 * (noise - noise.mean((1, 2), keepdims=True)) / noise.std((1, 2), keepdims=True)
    buffer = io.BytesIO()
    pixels = np.clip(scaled, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def make_pool(
    folder: Path, images: int, kind: str, cifar: Path | None = None, distinct: int = 512
) -> tuple[Path, Path]:
    """`folder`/pool.parquet and the same images as files in `folder`/files. `kind`: texture (500 x 375) or cifar."""
    if kind == "cifar":
        assert cifar is not None, "--cifar names the folder of CIFAR-10's Parquet files"
        tables = [pq.read_table(path, columns=["image"]) for path in sorted(cifar.glob("train-*.parquet"))]
        column = pa.concat_tables(tables)["image"].combine_chunks()
        if pa.types.is_struct(column.type):
            column = column.field("bytes")
        encoded = column.slice(0, images).to_pylist()
    else:
        made = [texture(seed) for seed in range(min(distinct, images))]
        encoded = [made[i % len(made)] for i in range(images)]
    files = folder / "files"
    files.mkdir(parents=True)
    suffix = "jpg" if encoded[0][:3] == b"\xff\xd8\xff" else "png"
    for number, image in enumerate(encoded):
        (files / f"{number:07d}.{suffix}").write_bytes(image)
    table = pa.table({"key": [f"{number:07d}" for number in range(len(encoded))], "image": encoded})
    pq.write_table(table, folder / "pool.parquet", row_group_size=256, compression="none")
    return folder / "pool.parquet", files


def make_teacher(folder: Path, model: str, size: int, num_classes: int = 1000) -> Path:
    """A model folder with random weights: good for speed, says nothing of agreement. Pass a trained folder for claims."""
    settings = ModelSettings(model=model, img_size=size)
    torch.manual_seed(0)
    save(folder, build(settings, num_classes), settings, [f"class {i}" for i in range(num_classes)])
    return folder
