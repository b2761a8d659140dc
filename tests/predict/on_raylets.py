"""A driver of its own that labels a pool on a cluster that a test made; run by `test_raylets.py`, which then kills what it likes.

Every labelling of a shard leaves a mark, a small JSON file: what was labelled, where, by whom, on which devices.
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import ray

from engine.ground.run import Run
from engine.ground.session import connect
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.models.imported import find_model
from engine.predict import pipeline
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.predict import PredictSettings


class MarkingActor(pipeline.PredictActor):
    """Takes its time over a shard, so that there is a middle to kill it in."""

    marks: Path
    seconds: float

    def _label(self, shard: int) -> dict[str, Any]:
        context = ray.get_runtime_context()
        mark = {
            "shard": shard,
            "pid": os.getpid(),
            "node": context.get_node_id(),
            "devices": context.get_accelerator_ids()["GPU"],
            "time": time.time(),
        }
        beside = self.marks / f"{uuid.uuid4().hex}.tmp"
        beside.write_text(json.dumps(mark))
        beside.rename(beside.with_suffix(".json"))
        time.sleep(self.seconds)
        return super()._label(shard)


def main(
    store: str,
    teacher: str,
    pool: str,
    rows_per_shard: int,
    marks: str,
    seconds: float,
    together: bool,
    cluster: dict[str, Any],
) -> None:
    MarkingActor.marks, MarkingActor.seconds = Path(marks), seconds  # travel with the class: it belongs to __main__
    pipeline.PredictActor = MarkingActor  # type: ignore[misc]
    pipeline.TASK_IMAGES = 0  # a pool of actors, however few images
    settings = ClusterSettings.model_validate(cluster)
    run = Run(Store(store), "run", settings)
    model = find_model(run, teacher)
    images = open_collection(run, "images", pool, SourceSettings(rows_per_shard=rows_per_shard))
    with connect(settings):
        if together:
            ray.data.DataContext.get_current().wait_for_min_actors_s = 600
        chosen = PredictSettings(top_p=3, batch_size=16, backend="eager")
        print(pipeline.predict(run, "predict", model, Scope(images), chosen).step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
