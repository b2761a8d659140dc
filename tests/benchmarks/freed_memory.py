"""What it costs that freed memory goes back to the kernel (engine.ground.allocator): inference and training with and without, interleaved.

python -m tests.benchmarks.freed_memory --rounds 3
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
import torch.nn.functional as F

from engine.ground import allocator
from engine.models.build import build_model as build_model
from engine.predict.backends import build
from engine.settings.model import ModelSettings

BATCH = 64
CASES = [
    ("resnet8_cifar", 32, "channels_last", 200),
    ("resnet8_cifar", 32, "frozen", 200),
    ("resnet18", 64, "channels_last", 40),
    ("resnet18", 64, "frozen", 40),
    ("resnet18", 224, "channels_last", 4),
    ("resnet18", 224, "frozen", 4),
    ("resnet8_cifar", 32, "training", 60),
    ("resnet18", 64, "training", 12),
    ("resnet18", 224, "training", 3),
]
"""Network, image size, backend (or training, bfloat16), batches."""


def rate(model: str, size: int, backend: str, batches: int, kept: bool) -> float:
    """Images a second of one process with one thread. Random weights: only speed is asked."""
    if kept:
        allocator.keep_freed()
    torch.set_num_threads(1)
    network = build_model(ModelSettings(model=model, img_size=size), 10)
    images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    if backend == "training":
        network = network.train().to(memory_format=torch.channels_last)
        truth = torch.randint(0, 10, (BATCH,))
        optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)

        def step() -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(images).float(), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    else:
        forward = build(backend, network.eval(), (BATCH, 3, size, size), torch.device("cpu"))

        def step() -> None:
            with torch.inference_mode():
                forward(images)

    for _ in range(3):
        step()
    began = time.perf_counter()
    for _ in range(batches):
        step()
    return batches * BATCH / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    print("| | given back, images/s | kept, images/s | kept is |\n|---|---:|---:|---:|")
    for case in CASES:
        found: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(arguments.rounds):
            for kept, rates in found.items():
                with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
                    asked = [pool.submit(rate, *case, kept) for _ in range(arguments.workers)]
                    rates.append(sum(one.result() for one in asked))
        ratios = ", ".join(f"{new / old:.2f}" for old, new in zip(found[False], found[True], strict=True))
        without, with_it = (statistics.median(found[kept]) for kept in (False, True))
        name, size, backend, _ = case
        print(f"| {name} at {size}, {backend} | {without:.0f} | {with_it:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
