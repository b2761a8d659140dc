"""Decoded batches for a labeller: in the caller's thread, or by threads that read and decode ahead of it.

On a CPU whose cores all infer there is nothing to run ahead with. On a GPU the decoders fill pinned uint8 batches, a bounded number ahead, so that
memory is (threads + AHEAD) batches of batch_size * 3 * S * S bytes, whatever the shard's size.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from engine.images.errors import RejectedImageError

AHEAD = 2

DecodeOne = Callable[[str, pa.Buffer | None], npt.NDArray[np.uint8]]
"""(key, encoded) to uint8 (S, S, 3). Raises RejectedImageError."""

DecodeMany = Callable[[list[str], list[pa.Buffer | None]], list[torch.Tensor | None]]
"""(keys, encoded) of a batch to uint8 (3, S, S) on the device each; None for those that are left to DecodeOne."""


@dataclass
class DecodedBatch:
    """Usable images of one read batch: row numbers int32 (n,), pixels uint8 (n, 3, S, S), channels last in memory; (row, key, reason) of the
    others; seconds spent."""

    rows: np.ndarray
    pixels: torch.Tensor
    skipped: list[tuple[int, str, str]] = field(default_factory=list)
    read: float = 0.0
    decode: float = 0.0


def decode_batch(
    batch: pa.RecordBatch, decode: DecodeOne, size: int, pin: bool = False, decode_many: DecodeMany | None = None
) -> DecodedBatch:
    """Decode the images of one batch of schema.IMAGES; each that cannot be used goes to `skipped` with its reason."""
    start = time.perf_counter()
    rows, keys = batch["row"].to_pylist(), batch["key"].to_pylist()
    images = [image.as_buffer() for image in batch["image"]]
    pixels = torch.empty((batch.num_rows, size, size, 3), dtype=torch.uint8, pin_memory=pin)
    places = pixels.numpy()  # numpy copies an image into its place in a tenth of torch's time
    made = decode_many(keys, images) if decode_many else [None] * len(images)
    there: dict[int, torch.Tensor] = {}
    kept: list[int] = []
    aside: list[tuple[int, str, str]] = []
    for row, key, image, on_device in zip(rows, keys, images, made, strict=True):
        try:
            if on_device is not None:
                there[len(kept)] = on_device
            else:
                places[len(kept)] = decode(key, image)
            kept.append(row)
        except RejectedImageError as bad:
            aside.append((row, key, str(bad)))
    usable = pixels[: len(kept)].permute(0, 3, 1, 2)
    if there:
        images_there = torch.stack(list(there.values()))
        usable = usable.to(images_there.device, non_blocking=True)
        usable[torch.tensor(list(there), device=usable.device)] = images_there
    return DecodedBatch(np.asarray(kept, np.int32), usable, aside, decode=time.perf_counter() - start)


class BatchDecoder:
    """Turns a shard's encoded batches into decoded ones. `threads` 0: no look-ahead."""

    def __init__(
        self,
        decode: DecodeOne,
        size: int,
        threads: int = 0,
        pin: bool = False,
        decode_many: DecodeMany | None = None,
    ) -> None:
        self.decode, self.size, self.threads, self.pin, self.decode_many = decode, size, threads, pin, decode_many
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads else None

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[DecodedBatch]:
        """Every batch once; with threads in the order in which they were read up to a few places. Errors of reading are raised here."""
        lock = threading.Lock()

        def one() -> DecodedBatch | None:
            with lock:  # a reader is one stream; the time spent waiting for another thread's read is not this batch's
                start = time.perf_counter()
                batch = next(batches, None)
                read = time.perf_counter() - start
            if batch is None:
                return None
            fed = decode_batch(batch, self.decode, self.size, self.pin, self.decode_many)
            fed.read = read
            return fed

        if self.pool is None:
            while (fed := one()) is not None:
                yield fed
            return
        flying: deque[Future[DecodedBatch | None]] = deque(self.pool.submit(one) for _ in range(self.threads + AHEAD))
        try:
            while flying:
                if (fed := flying.popleft().result()) is not None:
                    flying.append(self.pool.submit(one))
                    yield fed
        finally:
            for future in flying:
                future.cancel()
