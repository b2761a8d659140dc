"""What a run left in its store, read once: pointers, committed steps, settings and metrics. Nothing here depends on the size of the pool."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from engine.ground import storage
from engine.ground.run import Pointer, pointers
from engine.ground.steps import Output, Store, read_output
from engine.images.collection import Collection
from engine.images.file_listing import without_credentials
from engine.metrics.score import Score
from engine.predict.pool import pool_of
from engine.report.explain import RunHistory, read_history

SPLITS = ("labelled", "validation", "test", "pool")


@dataclass(frozen=True)
class RecordedStep:
    """A step of the run. What it came to is None while it is unfinished."""

    pointer: Pointer
    output: Output | None = None
    seconds: float = 0.0
    finished: float = 0.0
    host: str = ""
    engine: str = ""

    @property
    def title(self) -> str:
        return self.pointer.title

    @property
    def verb(self) -> str:
        return str(self.pointer.record["verb"])

    @property
    def is_reused(self) -> bool:
        """Whether an earlier run had computed it."""
        return self.output is not None and self.finished < self.pointer.order


@dataclass(frozen=True)
class GenerationRecord:
    """A model of the run with its scores on the validation and test images, by name of the set."""

    name: str
    scores: dict[str, Score]
    evaluations: dict[str, Output]
    model: str | None = None
    """Path of the model folder in the store's filesystem."""
    pseudo_labels: int | None = None
    pseudo_correct: float | None = None
    guard: dict[str, Any] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class RunRecord:
    """The records of a run. `settings` and `metrics` are plain values, empty where there are none (an unfinished run has no metrics)."""

    history: RunHistory
    name: str
    steps: tuple[RecordedStep, ...]
    settings: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def store(self) -> Store:
        return self.history.store

    def titled(self, title: str) -> Output | None:
        """The output of the finished step with this title."""
        return next((one.output for one in self.steps if one.title == title), None)

    def step(self, name: str) -> RecordedStep | None:
        """The step of the run with this name in the store."""
        return next((one for one in self.steps if one.pointer.step == name), None)

    @cached_property
    def generations(self) -> tuple[GenerationRecord, ...]:
        """The models of the run, oldest first: of its metrics, or of its finished steps while there are none."""
        if not self.metrics:
            fits = [one.title.removesuffix(" fit") for one in self.steps if one.verb == "fit" and one.output]
            return tuple(self._generation({"name": name}) for name in fits)
        return tuple(self._generation(row) for row in self.metrics["generations"])

    @property
    def chosen(self) -> GenerationRecord | None:
        """The model to use; None while the run has not decided."""
        return next((one for one in self.generations if one.name == self.metrics.get("chosen")), None)

    @property
    def main_set(self) -> str:
        """The set that scores are shown of: the test images where the models were tested, else the validation images."""
        return "test" if any("test" in one.scores for one in self.generations) else "validation"

    def _generation(self, row: dict[str, Any]) -> GenerationRecord:
        name = row["name"]
        found = {on: self.titled(f"{name} {on}") for on in ("validation", "test")}
        evaluations = {on: output for on, output in found.items() if output is not None}
        plain = {on: row[on] for on in found if row.get(on)} or {on: one.summary for on, one in evaluations.items()}
        model = row.get("model")
        if model is None and (fit := self.titled(f"{name} fit")) is not None:
            model = f"{fit.folder}/{fit.summary['model']}"
        return GenerationRecord(
            name,
            {on: Score.from_json(one) for on, one in plain.items()},
            evaluations,
            model,
            row.get("pseudo_labels"),
            row.get("pseudo_correct"),
            row.get("guard"),
            row.get("seconds", 0.0),
        )

    def class_names(self, generation: GenerationRecord) -> list[str]:
        """The classes of a model in index order, from its description alone. Raises FileNotFoundError when it is gone."""
        if generation.model is None:
            raise FileNotFoundError(f"the model of {generation.name} is not in the store")
        return list(json.loads(storage.get(self.store.fs, f"{generation.model}/config.json"))["label_names"])

    def selections(self) -> list[tuple[Pointer, Output]]:
        """The finished selections that have an account of their classes, in order."""
        return [(pointer, output) for pointer, output in self.history.of("select") if "report" in output.summary]

    def predictions_of(self, selection: Output) -> Output:
        """The predictions that a selection chose from. Raises ValueError when they are no longer in the store."""
        if (found := read_output(self.store, selection.summary["predictions"])) is None:
            raise ValueError(f"its predictions {selection.summary['predictions']} are no longer in the store")
        return found

    def collection_of(self, predictions: Output) -> Collection:
        """The collection that was predicted. Raises ValueError when its listing is no longer in the store."""
        if (found := pool_of(self.store, predictions)) is not None:
            return found
        digest = self.store.step_json(predictions.step, "record.json").get("inputs", {}).get("images", "")
        manifest = self.history.manifests.get(digest.partition("-")[0])
        if manifest is None:
            raise ValueError("the listing of the collection is no longer in the store")
        return Collection("pool", manifest)

    def collection(self, split: str) -> Collection | None:
        """The collection of a split, as it was listed; of several listings the one that the run's steps read. None where the run has none."""
        uri = (self.settings.get("data") or {}).get(split)
        if uri is None:
            return None
        place = without_credentials(storage.absolute(uri))
        found = [one for one in self.history.manifests.values() if without_credentials(one.uri) == place]
        read = {digest for one in self.steps for digest in one.pointer.record["inputs"].values()}
        used = [one for one in found if one.digest in read] or found
        return Collection(split, used[-1]) if used else None


def read_record(store: Store, run: str) -> RunRecord:
    """Read the records of a run. Raises FileNotFoundError naming the runs that exist."""
    folder = f"{store.root}/runs/{run}"
    history = read_history(store, run)
    outputs = {output.step: output for _, output in history.steps}
    steps = tuple(_recorded(store, pointer, outputs.get(pointer.step)) for pointer in pointers(store, run))
    settings = yaml.safe_load(_text(store, f"{folder}/settings.yaml") or "") or {}
    metrics = json.loads(_text(store, f"{folder}/metrics.json") or "{}")
    return RunRecord(history, run, steps, settings, metrics)


def _recorded(store: Store, pointer: Pointer, output: Output | None) -> RecordedStep:
    if output is None:
        return RecordedStep(pointer)
    lineage = store.step_json(pointer.step, "step.json").get("lineage", {})
    return RecordedStep(
        pointer,
        output,
        lineage.get("seconds", 0.0),
        lineage.get("finished", 0.0),
        lineage.get("host", ""),
        lineage.get("engine", ""),
    )


def _text(store: Store, path: str) -> str | None:
    return storage.get(store.fs, path).decode() if storage.exists(store.fs, path) else None


def bytes_of(output: Output, fs: storage.FileSystem) -> int:
    """Bytes of the committed parts of a step, from one column of their list."""
    column = pq.read_table(f"{output.folder}/parts.parquet", filesystem=fs, columns=["bytes"])["bytes"]
    return int(pc.sum(column).as_py() or 0)
