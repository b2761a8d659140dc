"""Labelling one shard, start to end: read, decode, infer, keep the top P. No Ray: a thousand actors and one process run the same lines."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from engine.ground.budget import count_reasons, is_excluded
from engine.images import nvjpeg
from engine.images.decode import Pixels, RejectedImageError, decode_array
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.predict.batch_decoder import BatchDecoder, DecodedBatch
from engine.predict.predictor import Fetched, Pending, Predictor
from engine.select.scores import pack
from engine.tables import schema


@dataclass
class Seconds:
    """Where a shard's time went.

    `read` and `decode` are the seconds for which that stage was busy, shared by its threads; `infer` those of the device; `wait` those in which the
    device had nothing decoded to work on (0 without look-ahead, where the stages follow one another); `write` is the put of the worker's part before.
    """

    read: float = 0.0
    decode: float = 0.0
    infer: float = 0.0
    wait: float = 0.0
    write: float = 0.0


@dataclass
class PredictedShard:
    """Predictions and quarantine of one shard, with what it cost."""

    shard: int
    predictions: pa.Table
    quarantine: pa.Table
    sidecar: tuple[str, pa.Table] | None = None
    """Folder and rows of what is too large for a prediction's row."""
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def reasons(self) -> dict[str, int]:
        """Number of rejected and excluded images per reason."""
        return count_reasons(self.quarantine["reason"].to_pylist())

    @property
    def excluded(self) -> int:
        """Images kept out on purpose, because they stand in a labelled or evaluation set."""
        return sum(count for reason, count in self.reasons.items() if is_excluded(reason))

    @property
    def rejected(self) -> int:
        """Images that could not be used."""
        return self.quarantine.num_rows - self.excluded


def quarantine_of(shard: int, skipped: list[tuple[int, str, str]]) -> pa.Table:
    """Rows (row, key, reason) of images that were skipped as a table (schema.QUARANTINE) in address order."""
    if not skipped:
        return schema.QUARANTINE.empty_table()
    rows, keys, reasons = zip(*sorted(skipped), strict=True)
    return pa.table([np.full(len(rows), shard, np.int32), rows, keys, reasons], schema=schema.QUARANTINE)


class ShardPredictor:
    """Predicts the shards of `scope` with one model. `threads` decode ahead; 0 decodes between the batches."""

    def __init__(self, scope: Scope, predictor: Predictor, threads: int = 0) -> None:
        self.scope, self.predictor = scope, predictor
        self.schema = self.make_schema()
        many = self._decode_many if predictor.settings.decode == "nvjpeg" and scope.corruption is None else None
        self.feed = BatchDecoder(
            self._decode, predictor.loaded.img_size, threads, predictor.device.type == "cuda", many
        )

    def make_schema(self) -> pa.Schema:
        """The schema of a part."""
        predictor = self.predictor
        classes = ClassList(tuple(predictor.loaded.class_names))
        return schema.predictions(len(classes.names), classes.hash, predictor.top_p, predictor.settings.columns)

    def __call__(self, shard: int) -> PredictedShard:
        result = PredictedShard(shard, self.schema.empty_table(), schema.QUARANTINE.empty_table())
        parts: list[tuple[np.ndarray, ...]] = []
        more: list[dict[str, Any]] = []
        skipped: list[tuple[int, str, str]] = []
        batches = self.scope.read(shard, self.predictor.settings.batch_size)
        for fed, found in self._answers(self.feed(iter(batches)), result.seconds, skipped):
            parts.append((fed.rows, found.classes, found.odds, found.extra))
            more += [{"row": int(row), **one} for row, one in zip(fed.rows, found.more, strict=bool(found.more))]
        if parts:
            columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
            order = np.argsort(columns[0], kind="stable")  # threads finish in any order; a part is in address order
            rows, classes, scores, extra = (column[order] for column in columns)
            shards = np.full(rows.size, shard, np.int32)
            result.predictions = pack(shards, rows, classes, scores, self.schema, list(extra.T))
            result.sidecar = self.predictor.answers.sidecar(sorted(more, key=lambda one: one["row"]))
        result.quarantine = quarantine_of(shard, skipped)
        return result

    def _answers(
        self, feed: Iterator[DecodedBatch], seconds: Seconds, skipped: list[tuple[int, str, str]]
    ) -> Iterator[tuple[DecodedBatch, Fetched]]:
        """Batches with their answers. The device is given a batch before the answers of the one before are fetched, so it is not idle in between."""
        before: tuple[DecodedBatch, Pending] | None = None
        threads = max(1, self.feed.threads)
        while True:
            start = time.perf_counter()
            fed = next(feed, None)
            if self.feed.threads:
                seconds.wait += time.perf_counter() - start
            if fed is not None:
                seconds.read += fed.read / threads
                seconds.decode += fed.decode / threads
                skipped += fed.skipped
            now = (fed, self.predictor.start(fed.pixels)) if fed is not None and fed.rows.size else None
            if before is not None:
                found = self.predictor.finish(before[1])
                seconds.infer += found.seconds
                yield before[0], found
            before = now
            if fed is None:
                return

    def _decode(self, key: str, data: pa.Buffer | None) -> Pixels:
        """uint8 (S, S, 3) of one image. Raises RejectedImageError for one that is rejected or excluded."""
        if reason := self.scope.reason(key, data):
            raise RejectedImageError(reason)
        loaded, scaled = self.predictor.loaded, self.predictor.settings.decode == "scaled"
        pixels = decode_array(data, loaded.frame, scaled)
        return pixels if data is None else self.scope.corrupted(pixels, data)

    def _decode_many(self, keys: list[str], images: list[pa.Buffer | None]) -> list[torch.Tensor | None]:
        """uint8 (3, S, S) on the device of what nvJPEG takes; None for the rest and for what `_decode` will refuse."""
        ours = [None if self.scope.reason(key, data) else data for key, data in zip(keys, images, strict=True)]
        loaded = self.predictor.loaded
        return nvjpeg.decode_batch(ours, loaded.frame, self.predictor.device)
