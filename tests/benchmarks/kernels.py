"""A labelling worker's two stages alone, one thread: decoders of the same JPEGs, and backends with and without matrix products for small maps.

    python -m tests.benchmarks.kernels decode --cifar DIR
    python -m tests.benchmarks.kernels infer --models resnet18 resnet8_cifar --sizes 64 32

Interleaved, best of the rounds, wall seconds.
"""

import argparse
import io
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_jpeg

from engine.images.decode import Frame, decode_array
from engine.models.build import build_model as build_model
from engine.predict import backends, int8
from engine.predict.backends import UnavailableError
from engine.predict.conv_to_matmul import replace_small_convs
from engine.settings.model import ModelSettings
from tests.benchmarks.predict_material import cifar_images, photo

BATCH = 64
EXACT = ("eager", "channels_last", "frozen", "openvino")
OTHERS = ("bf16", "openvino_bf16", "int8")


def best(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Least seconds of each call, after one that does not count."""
    seconds: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number:
                seconds[name] = min(seconds.get(name, float("inf")), time.perf_counter() - started)
    return seconds


def by_torchvision(data: bytes, size: int) -> Tensor:
    """torchvision's decoder, the shorter side resized to `size`, the centre cropped."""
    image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    height, width = image.shape[1:]
    if min(height, width) == size:
        return image
    shape = [size * side // min(height, width) for side in (height, width)]
    small = F.interpolate(image[None], shape, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = ((side - size) // 2 for side in shape)
    return small[:, top : top + size, left : left + size].contiguous()


def by_pillow(data: bytes, size: int) -> np.ndarray:
    """Pillow's, the centre resized."""
    image: Any = Image.open(io.BytesIO(data)).convert("RGB")
    if min(image.size) != size:
        edge = [(side - min(image.size)) / 2 for side in image.size]
        box = (edge[0], edge[1], image.size[0] - edge[0], image.size[1] - edge[1])
        image = image.resize((size, size), Image.Resampling.BILINEAR, box)
    return np.asarray(image)


def _all(decoder: Callable[[bytes, int], Any], images: list[bytes], size: int) -> None:
    for image in images:
        decoder(image, size)


def decoders(cifar: Path, rounds: int) -> list[str]:
    """A table of microseconds an image."""
    small = cifar_images(cifar, 400)[0]
    lines = ["| JPEGs | engine | engine, scaled | torchvision | Pillow |", "|---|---:|---:|---:|---:|"]
    for name, images, size in (
        ("CIFAR-10's at 32 px", small, 32),
        ("500 x 375 at 64 px", [photo(one, seed) for seed, one in enumerate(small)], 64),
    ):
        ways: dict[str, Callable[[bytes, int], Any]] = {
            "engine": lambda data, size: decode_array(data, Frame(size)),
            "scaled": lambda data, size: decode_array(data, Frame(size), scaled=True),
            "torchvision": by_torchvision,
            "pillow": by_pillow,
        }
        calls = {way: partial(_all, decoder, images, size) for way, decoder in ways.items()}
        seconds = best(calls, rounds)
        lines.append(f"| {name} | " + " | ".join(f"{1e6 * one / len(images):.1f}" for one in seconds.values()) + " |")
    return lines


def _as_it_is(network: nn.Module, _: int) -> nn.Module:
    return network


def rates(model: str, size: int, rounds: int) -> list[str]:
    """A table of images a second of each backend, without and with matrix products."""
    network = build_model(ModelSettings(model=model, img_size=size), 10).eval()
    pixels, shape, device = torch.randn(BATCH, 3, size, size), (BATCH, 3, size, size), torch.device("cpu")
    calls: dict[str, Callable[[], Any]] = {}
    for variant in ("convolutions", "products"):
        with mock.patch.object(backends, "densified", replace_small_convs if variant == "products" else _as_it_is):
            for name in (*EXACT, *OTHERS):
                try:
                    quantised = int8.quantise(network, pixels.repeat(4, 1, 1, 1), BATCH) if name == "int8" else None
                    forward = backends.build(name, network, shape, device, quantised)
                except UnavailableError as error:
                    print(f"{name}: {error}")
                    continue
                calls[f"{name} {variant}"] = partial(forward, pixels)
    with torch.inference_mode():
        seconds = best(calls, rounds)
    lines = [f"| {model} at {size} px | convolutions, images/s | products, images/s | x |", "|---|---:|---:|---:|"]
    for name in (*EXACT, *OTHERS):
        if f"{name} products" in seconds:
            one, other = (BATCH / seconds[f"{name} {variant}"] for variant in ("convolutions", "products"))
            lines.append(f"| {name} | {one:,.0f} | {other:,.0f} | {other / one:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, dest="verb")
    decode = verbs.add_parser("decode")
    decode.add_argument("--cifar", type=Path, required=True)
    infer = verbs.add_parser("infer")
    infer.add_argument("--models", nargs="+", default=["resnet18"])
    infer.add_argument("--sizes", nargs="+", type=int, default=[64, 32])
    for verb in (decode, infer):
        verb.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if arguments.verb == "decode":
        print("\n".join(decoders(arguments.cifar, arguments.rounds)))
    else:
        for model in arguments.models:
            for size in arguments.sizes:
                print("\n".join(rates(model, size, arguments.rounds)), flush=True)


if __name__ == "__main__":
    main()
