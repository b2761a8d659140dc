"""Features of one shard: what the frozen network gives of each image, as float16, with the image's content hash."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from engine.images.decode import content_hash
from engine.predict.shard_predictor import PredictedShard, ShardPredictor, quarantine_of
from engine.select.scores import binary, matrix
from engine.settings.predict import PredictSettings
from engine.tables import schema
from engine.tasks.answers import Answered

FEATURES = "features"


@dataclass(frozen=True)
class FeatureAnswers:
    """A network without a classifier: its outputs are kept as they are."""

    is_measured: bool = True
    identity: dict[str, Any] = field(default_factory=dict)

    def top_p(self, wanted: int, num_classes: int) -> int:  # noqa: ARG002
        return 0

    def of(self, views: list[Tensor], settings: PredictSettings, top_p: int) -> Answered:  # noqa: ARG002
        """No classes; the features float32 (N, D) of the one view."""
        features = views[0]
        none = features.new_empty((len(features), 0))
        return Answered(none.long(), none, none, (features,))

    def encode(self, more: tuple[np.ndarray, ...]) -> list[dict[str, Any]]:
        """The float16 features (D,) of each image. Raises ValueError for features that float16 cannot hold."""
        with np.errstate(over="ignore"):
            rounded = more[0].astype(np.float16)
        if not np.isfinite(rounded).all():
            raise ValueError(
                f"features of {int((~np.isfinite(rounded)).any(axis=1).sum())} images are not finite in float16 (largest"
                f" {np.abs(more[0]).max():g}): the network's outputs are too large or it diverged. Use another network."
            )
        return [{FEATURES: row} for row in rounded]

    def sidecar(self, rows: list[dict[str, Any]]) -> None:  # noqa: ARG002
        return None


class ShardEmbedder(ShardPredictor):
    """Embeds the shards of a scope. Its parts are tables of schema.features."""

    def make_schema(self) -> pa.Schema:
        size = self.predictor.loaded.img_size
        black = torch.zeros((1, 3, size, size), dtype=torch.uint8)
        return schema.features(int(self.predictor.logits(black)[0].shape[1]))

    def __call__(self, shard: int) -> PredictedShard:
        result = PredictedShard(shard, self.schema.empty_table(), schema.QUARANTINE.empty_table())
        contents: dict[int, bytes] = {}
        rows: list[np.ndarray] = []
        found: list[np.ndarray] = []
        skipped: list[tuple[int, str, str]] = []
        batches = with_hashes(self.scope.read(shard, self.predictor.settings.batch_size), contents)
        for fed, answered in self._answers(self.feed(batches), result.seconds, skipped):
            rows.append(fed.rows)
            found += [one[FEATURES] for one in answered.more]
        if rows:
            at = np.concatenate(rows)
            order = np.argsort(at, kind="stable")  # threads finish in any order; a part is in address order
            result.predictions = feature_table(
                shard, at[order], [contents[int(row)] for row in at[order]], np.stack(found)[order], self.schema
            )
        result.quarantine = quarantine_of(shard, skipped)
        return result


def with_hashes(batches: Iterator[pa.RecordBatch], contents: dict[int, bytes]) -> Iterator[pa.RecordBatch]:
    """The batches of schema.IMAGES as they are; the content hash of each image is noted by its row."""
    for batch in batches:
        for row, image in zip(batch["row"].to_pylist(), batch["image"], strict=True):
            if image.is_valid:
                contents[row] = content_hash(image.as_buffer())
        yield batch


def feature_table(
    shard: int,
    rows: npt.NDArray[np.int32],
    contents: list[bytes],
    features: npt.NDArray[np.float16],
    expected: pa.Schema,
) -> pa.Table:
    """Features (N, D) of N rows of a shard as a table of schema.features."""
    columns = [
        pa.array(np.full(len(rows), shard, np.int32)),
        pa.array(rows, pa.int32()),
        pa.array(contents, pa.binary(16)),
        binary(np.ascontiguousarray(features, dtype="<f2")),
    ]
    return pa.Table.from_arrays(columns, schema=expected)


def features_of(table: pa.Table) -> npt.NDArray[np.float16]:
    """The features float16 (N, D) of a table of schema.features; a view of the table's memory where it is one chunk."""
    return matrix(table, FEATURES, np.dtype("<f2"))
