"""Labelling one shard, start to end: read, decode, infer, keep the top P. No Ray: a thousand actors and one process run the same lines."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from engine import schema
from engine.images.decode import BadImage, content_hash, decode
from engine.images.manifest import Manifest
from engine.images.overlap import HeldOut
from engine.labels.classes import ClassManifest
from engine.predict.predictor import Predictor
from engine.select.scores import pack


@dataclass
class Seconds:
    """Where a shard's time went."""

    read: float = 0.0
    decode: float = 0.0
    infer: float = 0.0


@dataclass
class LabelledShard:
    """Predictions and quarantine of one shard, with what it cost."""

    shard: int
    predictions: pa.Table
    quarantine: pa.Table
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def reasons(self) -> dict[str, int]:
        """How many images were set aside, by reason."""
        return dict(Counter(self.quarantine["reason"].to_pylist()))

    @property
    def excluded(self) -> int:
        """Images kept out on purpose, because they stand in a labelled or evaluation set."""
        return sum(count for reason, count in self.reasons.items() if reason.startswith("excluded"))

    @property
    def rejected(self) -> int:
        """Images that could not be used."""
        return self.quarantine.num_rows - self.excluded


class ShardLabeller:
    """Labels the shards of one collection with one teacher."""

    def __init__(self, manifest: Manifest, predictor: Predictor, held: HeldOut | None = None) -> None:
        self.manifest, self.predictor, self.held = manifest, predictor, held
        classes = ClassManifest(tuple(predictor.loaded.class_names))
        self.schema = schema.predictions(len(classes.names), classes.hash, predictor.top_p)

    def __call__(self, shard: int) -> LabelledShard:
        result = LabelledShard(shard, self.schema.empty_table(), schema.QUARANTINE.empty_table())
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        set_aside: list[tuple[int, str, str]] = []
        for batch in self._batches(shard, result.seconds):
            rows, images = self._decode(batch, set_aside, result.seconds)
            if rows.size:
                start = time.perf_counter()
                parts.append((rows, *self.predictor(images)))
                result.seconds.infer += time.perf_counter() - start
        if parts:
            rows, classes, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
            result.predictions = pack(np.full(rows.size, shard, np.int32), rows, classes, scores, self.schema)
        if set_aside:
            rows_aside, keys, reasons = zip(*set_aside, strict=True)
            result.quarantine = pa.table(
                [np.full(len(rows_aside), shard, np.int32), rows_aside, keys, reasons], schema=schema.QUARANTINE
            )
        return result

    def _batches(self, shard: int, seconds: Seconds) -> Iterator[pa.RecordBatch]:
        """The shard's encoded images, with the time spent waiting for them."""
        batches = self.manifest.read(shard, batch_rows=self.predictor.settings.batch_size)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            seconds.read += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def _refuse_held_out(self, key: str, data: pa.Buffer) -> None:
        """Raise BadImage for an image that stands in a labelled or evaluation set."""
        assert self.held is not None
        if reason := self.held.reason(key if self.manifest.has_keys else None, content_hash(data)):
            raise BadImage(reason)

    def _decode(
        self, batch: pa.RecordBatch, set_aside: list[tuple[int, str, str]], seconds: Seconds
    ) -> tuple[np.ndarray, torch.Tensor]:
        """Row numbers int32 (n,) and pixels uint8 (n, 3, S, S) of the usable images; the others go to `set_aside` with their reason."""
        start = time.perf_counter()
        loaded = self.predictor.loaded
        size = loaded.img_size
        pixels = torch.empty((batch.num_rows, 3, size, size), dtype=torch.uint8)
        kept: list[int] = []
        for row, key, image in zip(batch["row"].to_pylist(), batch["key"].to_pylist(), batch["image"], strict=True):
            data = image.as_buffer()
            try:
                if self.held is not None and data is not None:
                    self._refuse_held_out(key, data)
                pixels[len(kept)] = decode(data, size, loaded.crop_pct, loaded.interpolation)
                kept.append(row)
            except BadImage as bad:
                set_aside.append((row, key, str(bad)))
        seconds.decode += time.perf_counter() - start
        return np.asarray(kept, np.int32), pixels[: len(kept)]
