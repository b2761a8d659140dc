"""Images and teachers for the labelling benchmarks."""

import io
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image

from engine.images.decode import Frame, decode
from engine.models.build import build_model, normalisation
from engine.models.checkpoint import save
from engine.settings.model import ModelSettings

MARGIN = 4
"""Pixels by which a batch is moved at most when a teacher learns from it."""


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


def photo(small: bytes, seed: int, quality: int = 87) -> bytes:
    """An image of CIFAR-10 as a camera might have brought it: 500 x 375, with 1/f noise too faint to hide what it shows, about 50 kB."""
    image = Image.open(io.BytesIO(small)).convert("RGB").resize((500, 375), Image.Resampling.BICUBIC)
    noise = np.asarray(_noise(seed % 16)).astype(np.int16) - 128
    rolled = np.roll(noise, (17 * seed, 29 * seed), (0, 1))
    pixels = np.clip(np.asarray(image).astype(np.int16) + rolled // 4, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def photos(small: list[bytes]) -> list[bytes]:
    """`photo` of each, on all cores."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(photo, small, range(len(small)), chunksize=256))


@cache
def _noise(seed: int) -> Image.Image:
    return Image.open(io.BytesIO(texture(seed))).convert("RGB")


def cifar_images(cifar: Path | None, images: int, split: str = "train") -> tuple[list[bytes], list[str]]:
    """Encoded images and labels of CIFAR-10's Parquet files."""
    if cifar is None:
        raise SystemExit("--cifar names the folder of CIFAR-10's Parquet files")
    tables = [pq.read_table(path, columns=["image", "label"]) for path in sorted(cifar.glob(f"{split}*.parquet"))]
    table = pa.concat_tables(tables).slice(0, images)
    column = table["image"].combine_chunks()
    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    return column.to_pylist(), [str(label) for label in table["label"].to_pylist()]


def make_pool(
    folder: Path, images: int, kind: str, cifar: Path | None = None, distinct: int = 512
) -> tuple[Path, Path]:
    """`folder`/pool.parquet and the same images as files in `folder`/files. `kind`: texture (500 x 375), cifar, photo (CIFAR-10's, 500 x 375)."""
    if kind == "cifar":
        made = cifar_images(cifar, images)[0]
        encoded = [made[i % len(made)] for i in range(images)]
    elif kind == "photo":
        encoded = photos(cifar_images(cifar, images)[0])
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
    save(folder, build_model(settings, num_classes), settings, [f"class {i}" for i in range(num_classes)])
    return folder


def train_teacher(folder: Path, settings: ModelSettings, cifar: Path, kind: str, images: int, steps: int) -> Path:
    """A model folder of a network that has learnt: a plain torch loop on CIFAR-10's labels, on the same `kind` of images as the pool.

    Trained on the last `images` of the training set: `make_pool` takes the first.
    """
    encoded, labels = cifar_images(cifar, 50_000)
    encoded, labels = encoded[-images:], labels[-images:]
    if kind == "photo":
        encoded = photos(encoded)
    names, size = sorted(set(labels)), settings.img_size
    torch.manual_seed(0)
    network = build_model(settings, len(names)).train().to(memory_format=torch.channels_last)
    to = normalisation(settings, network)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) * 255 for one in (to.mean, to.std))
    pixels = torch.stack([decode(image, Frame(size)) for image in encoded])
    truth = torch.tensor([names.index(label) for label in labels])
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(0, len(encoded), (128,))
        batch = (pixels[chosen].float() - mean) / std
        batch = batch.flip(3) if step % 2 else batch
        top, left = torch.randint(2 * MARGIN + 1, (2,)).tolist()
        batch = F.pad(batch, (MARGIN,) * 4, mode="reflect")[..., top : top + size, left : left + size]
        loss = F.cross_entropy(network(batch.contiguous(memory_format=torch.channels_last)), truth[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        rate.step()
    save(folder, network.eval(), settings, names)
    return folder
