"""A finished predict or select step as a person reads it: keys instead of addresses, names instead of indices, probabilities instead of log-odds."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from engine.ground.steps import Output, Store, read_output, read_tables
from engine.images.manifest import Manifest
from engine.labels.classes import ClassList
from engine.models.fetch import teacher_classes
from engine.predict.pool import pool_of
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
CHOSEN = pa.schema(
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
    """What a step says of its images. `verb` is predict or select."""

    store: Store
    output: Output
    predictions: Output
    manifest: Manifest

    @property
    def verb(self) -> str:
        return self.output.step.partition("-")[0]

    @property
    def schema(self) -> pa.Schema:
        return PREDICTED if self.verb == "predict" else CHOSEN

    @cached_property
    def classes(self) -> ClassList:
        """The classes of the model that labelled."""
        return teacher_classes(self.store, self.predictions)

    def tables(self) -> Iterator[pa.Table]:
        """Tables of `schema` in address order, a shard each; a part is held in memory at a time."""
        names = pa.array(self.classes.names, pa.string())
        for _, table in read_tables(self.output, self.store.fs):
            for shard in np.unique(table["shard"].to_numpy()):
                mine = table.filter(pa.array(table["shard"].to_numpy() == shard)).sort_by("row")
                rows = mine["row"].to_numpy()
                address = [self._keys(int(shard), rows), mine["shard"], mine["row"]]
                answers = self._predicted(mine, names) if self.verb == "predict" else self._chosen(mine, names)
                yield pa.table([*address, *answers], schema=self.schema)

    def _keys(self, shard: int, rows: np.ndarray) -> list[str]:
        distinct, inverse = np.unique(rows, return_inverse=True)  # an image chosen for two classes is two rows
        keys = self.manifest.resolve(shard, distinct)
        return [keys[i] for i in inverse]

    def _predicted(self, table: pa.Table, names: pa.Array) -> list[pa.Array]:
        classes, scores = classes_of(table), probability(scores_of(table)).astype(np.float32)
        offsets = pa.array(np.arange(0, classes.size + 1, max(1, classes.shape[1]), dtype=np.int32))
        return [
            pa.ListArray.from_arrays(offsets, names.take(pa.array(classes.ravel().astype(np.int64)))),
            pa.ListArray.from_arrays(offsets, pa.array(scores.ravel())),
        ]

    def _chosen(self, table: pa.Table, names: pa.Array) -> list[pa.Array]:
        classes = names.take(pa.array(table["class"].to_numpy().astype(np.int64)))
        scores = pa.array(probability(table["score"].to_numpy()).astype(np.float32))
        return [classes, scores, table["rank"], table["count"]]


def find_answers(store: Store, step: str) -> StepExport:
    """The answers of a finished predict or select step. Raises ValueError saying what is missing."""
    output = read_output(store, step)
    if output is None or step.partition("-")[0] not in ("predict", "select"):
        raise ValueError(
            f"{step}: not a finished predict or select step of {store.uri}; `python -m jobs.status {store.uri}` lists them"
        )
    predictions = output if step.startswith("predict-") else _predictions_of(store, step)
    pool = pool_of(store, predictions)
    if pool is None:
        raise ValueError(
            f"{predictions.step}: labelled by an engine that did not write down its collection; label again to export"
        )
    return StepExport(store, output, predictions, pool.manifest)


def _predictions_of(store: Store, step: str) -> Output:
    """The predict step that a select step chose from, by the digest in its record."""
    digest = store.step_json(step, "record.json").get("inputs", {}).get("predictions")
    for name in store.steps():
        if name.startswith("predict-") and (output := read_output(store, name)) and output.digest == digest:
            return output
    raise ValueError(f"{step}: the predictions that it chose from are no longer in {store.uri}")
