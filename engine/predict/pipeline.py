"""Predict on Ray Data: the rows that are sharded are *shards*, one a block; an actor runs each from its file to its committed part.

Pixels never enter the object store: what travels is a shard's number in and a report of a few numbers out.
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import torch

from engine.images.collection import Collection
from engine.images.overlap import HeldOut
from engine.models.fetch import fetch_model
from engine.predict.labelling import LabelledShard, ShardLabeller
from engine.predict.predictor import Predictor
from engine.progress import Progress, say
from engine.resources import Actors, labelling_actors
from engine.run import Run
from engine.settings import PredictSettings
from engine.steps import Output, Part, Step

REVISION = 1
PARQUET = {
    "column_encoding": {"row": "DELTA_BINARY_PACKED", "classes": "BYTE_STREAM_SPLIT", "scores": "BYTE_STREAM_SPLIT"},
    "use_dictionary": ["shard"],
}


class TooManyRejectsError(ValueError):
    """More images were unusable than the budget allows."""


class LabelActor:
    """One process of the pool: holds the teacher, labels the shards it is handed, one part each."""

    def __init__(
        self,
        step: Step,
        collection: Collection,
        model: Output,
        settings: PredictSettings,
        held: HeldOut | None,
        threads: int,
    ) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(threads)
        predictor = Predictor(fetch_model(model, step.fs), settings, device)
        self.step = step
        self.labeller = ShardLabeller(collection.manifest, predictor, held)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        return {"part": [vars(self._commit(self.labeller(int(shard)))) for shard in batch["shard"]]}

    def _commit(self, labelled: LabelledShard) -> Part:
        if labelled.quarantine.num_rows:
            self.step.put_beside("quarantine", labelled.shard, labelled.quarantine)
        stats = {"reasons": labelled.reasons, "rejected": labelled.rejected, "excluded": labelled.excluded}
        return self.step.put_part(labelled.shard, labelled.predictions, stats, vars(labelled.seconds), **PARQUET)


def predict(
    run: Run,
    label: str,
    model: Output,
    collection: Collection,
    settings: PredictSettings,
    held: HeldOut | None = None,
    max_rejected_percent: float = 1.0,
) -> Output:
    """Predictions of `model` for every usable image of `collection` that is not held out: one part a shard (schema.predictions).

    Raises TooManyRejectsError when more than `max_rejected_percent` of the images seen are unusable; what was labelled until then stays.
    """
    plan_keys = {"batch_size"}
    fingerprinted = settings.fingerprinted()
    inputs = {"model": model.digest, "images": collection.digest, "held": held.digest if held else "none"}

    def work(step: Step) -> Output:
        started = time.time()
        plan = step.plan(
            lambda: {"shards": collection.manifest.num_shards, "predict": settings.model_dump(include=plan_keys)}
        )
        obeyed = settings.model_copy(update=plan["predict"])
        parts = step.found_parts()
        remaining = [shard for shard in range(collection.manifest.num_shards) if shard not in parts]
        progress = Progress(label, collection.manifest.num_shards, "shards", done=len(parts))
        budget = RejectBudget(max_rejected_percent, parts.values())
        actors = labelling_actors(run.cluster, len(remaining))
        for wave in np.array_split(remaining, max(1, -(-len(remaining) // run.cluster.wave_shards))):
            for part in _label_wave(wave, step, collection, model, obeyed, held, actors):
                parts[part.unit] = part
                progress.add(1, part.rows, part.stats["rejected"])
                budget.spend(part)
        if budget.excluded:
            say(label, f"{budget.excluded} pool images excluded: they stand in a labelled or evaluation set")
        return step.commit(parts.values(), {"model": model.step, **budget.summary()}, started)

    return run.step(label, "predict", REVISION, fingerprinted, inputs, work)


class RejectBudget:
    """Counts unusable images and fails the run once they are more than `percent` of those seen (and more than a handful)."""

    def __init__(self, percent: float, earlier: Any = ()) -> None:
        self.percent = percent
        self.seen = self.rejected = self.excluded = 0
        self.reasons: Counter[str] = Counter()
        for part in earlier:
            self._count(part)

    def _count(self, part: Part) -> None:
        self.rejected += part.stats["rejected"]
        self.excluded += part.stats["excluded"]
        self.seen += part.rows + part.stats["rejected"]
        self.reasons.update(part.stats["reasons"])

    def spend(self, part: Part) -> None:
        self._count(part)
        if self.rejected > 10 and self.rejected * 100 > self.percent * self.seen:
            self.check()

    def check(self) -> None:
        """Raise when the budget is exceeded."""
        if self.rejected * 100 > self.percent * self.seen:
            worst = ", ".join(
                f"{reason}: {count}"
                for reason, count in self.reasons.most_common(5)
                if not reason.startswith("excluded")
            )
            raise TooManyRejectsError(
                f"{self.rejected} of {self.seen} images could not be used ({worst}); the budget is data.max_rejected_percent={self.percent}. "
                "Their keys and reasons are in the step's quarantine/; mend them or raise the budget. What was labelled is kept."
            )

    def summary(self) -> dict[str, Any]:
        self.check()
        return {
            "images": self.seen - self.rejected,
            "rejected": self.rejected,
            "excluded": self.excluded,
            "reasons": dict(self.reasons),
        }


def _label_wave(
    wave: np.ndarray,
    step: Step,
    collection: Collection,
    model: Output,
    settings: PredictSettings,
    held: HeldOut | None,
    actors: Actors,
) -> Iterator[Part]:
    """Label the shards of one wave on the pool of actors, yielding each part as it is committed."""
    if wave.size == 0:
        return
    shards = ray.data.from_items([{"shard": int(shard)} for shard in wave], override_num_blocks=len(wave))
    labelled = shards.map_batches(
        LabelActor,
        fn_constructor_kwargs={
            "step": step,
            "collection": collection,
            "model": model,
            "settings": settings,
            "held": held,
            "threads": actors.threads,
        },
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors.count, max_tasks_in_flight_per_actor=2),
        num_cpus=actors.cpus,
        num_gpus=actors.gpus,
    )
    for row in labelled.iter_rows():
        yield Part(**row["part"])
