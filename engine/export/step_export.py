"""A finished predict or select step for export: keys instead of addresses, names instead of indices, probabilities instead of log-odds."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from engine.ground.steps import Output, Store, read_output, read_tables
from engine.images.manifest import Manifest
from engine.labels.classes import ClassList
from engine.models.fetch import teacher_classes
from engine.predict.pool import pool_of, predictions_of
from engine.select.scores import classes_of, probability, scores_of

PREDICTED = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("classes", pa.list_(pa.string())),  # best first
        ("probabilities", pa.list_(pa.float32())),
    ]
)
SELECTED = pa.schema(
    [
        *list(PREDICTED)[:3],
        ("class", pa.string()),
        ("probability", pa.float32()),
        ("rank", pa.int32()),
        ("count", pa.int32()),
    ]
)


@dataclass(frozen=True)
class StepExport:
    """The rows of a finished step. `verb` is predict or select."""

    store: Store
    output: Output
    predictions: Output
    manifest: Manifest

    @property
    def verb(self) -> str:
        return self.output.step.partition("-")[0]

    @property
    def schema(self) -> pa.Schema:
        return PREDICTED if self.verb == "predict" else SELECTED

    @cached_property
    def classes(self) -> ClassList:
        """The classes of the model that predicted."""
        return teacher_classes(self.store, self.predictions)

    def tables(self) -> Iterator[pa.Table]:
        """Tables of `schema` in address order, one per shard; one part at a time is in memory."""
        names = pa.array(self.classes.names, pa.string())
        for _, table in read_tables(self.output, self.store.fs):
            for shard in np.unique(table["shard"].to_numpy()):
                own = table.filter(pa.array(table["shard"].to_numpy() == shard)).sort_by("row")
                rows = own["row"].to_numpy()
                address = [self._keys(int(shard), rows), own["shard"], own["row"]]
                columns = self._predicted(own, names) if self.verb == "predict" else self._selected(own, names)
                yield pa.table([*address, *columns], schema=self.schema)

    def _keys(self, shard: int, rows: np.ndarray) -> list[str]:
        distinct, inverse = np.unique(rows, return_inverse=True)  # an image selected for two classes has two rows
        keys = self.manifest.resolve(shard, distinct)
        return [keys[i] for i in inverse]

    def _predicted(self, table: pa.Table, names: pa.Array) -> list[pa.Array]:
        classes, scores = classes_of(table), probability(scores_of(table)).astype(np.float32)
        offsets = pa.array(np.arange(0, classes.size + 1, max(1, classes.shape[1]), dtype=np.int32))
        return [
            pa.ListArray.from_arrays(offsets, names.take(pa.array(classes.ravel().astype(np.int64)))),
            pa.ListArray.from_arrays(offsets, pa.array(scores.ravel())),
        ]

    def _selected(self, table: pa.Table, names: pa.Array) -> list[pa.Array]:
        classes = names.take(pa.array(table["class"].to_numpy().astype(np.int64)))
        scores = pa.array(probability(table["score"].to_numpy()).astype(np.float32))
        return [classes, scores, table["rank"], table["count"]]


def open_step(store: Store, step: str) -> StepExport:
    """A finished predict or select step. Raises ValueError when it, its predictions or its collection cannot be found."""
    output = read_output(store, step)
    if output is None or step.partition("-")[0] not in ("predict", "select"):
        raise ValueError(
            f"{step}: not a finished predict or select step of {store.uri}. `python -m jobs.status {store.uri}` lists the steps."
        )
    predictions = output if step.startswith("predict-") else predictions_of(store, output)
    pool = pool_of(store, predictions)
    if pool is None:
        raise ValueError(
            f"{predictions.step}: written by an engine that did not record the collection. Predict again to export."
        )
    return StepExport(store, output, predictions, pool.manifest)
