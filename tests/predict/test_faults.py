"""Labelling on a real Ray while workers are killed, break in their constructor, and the store cannot be written."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from engine.ground import storage
from engine.ground.failures import WorkersFailedError
from engine.ground.run import Run
from engine.ground.steps import Output, Store, StoreError, read_tables
from engine.images.collection import Collection, open_collection
from engine.images.scope import Scope
from engine.models.imported import find_model
from engine.predict import pipeline
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import PredictedShard
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.predict import PredictSettings
from tests.predict.test_shard_predictor import teacher as teacher  # the fixture

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

SETTINGS = PredictSettings(top_p=3, batch_size=16, backend="eager")


@pytest.fixture(autouse=True)
def a_pool_of_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few images there are."""
    monkeypatch.setattr(pipeline, "TASK_IMAGES", 0)


class Pool:
    """A store of its own with a model and a collection in it."""

    def __init__(self, store: Path | str, teacher: Path, digits: Path, **retries: Any) -> None:
        self.run = Run(Store(str(store)), "run", ClusterSettings(label={"workers": 1}, retries=retries))
        self.model: Output = find_model(self.run, str(teacher))
        source = SourceSettings(rows_per_shard=64)
        self.images: Collection = open_collection(self.run, "images", str(digits / "pool.parquet"), source)

    def label(self) -> Output:
        return pipeline.predict(self.run, "predict", self.model, Scope(self.images), SETTINGS)

    def rows(self, output: Output) -> list[dict[str, Any]]:
        return [row for _, table in read_tables(output, self.run.store.fs) for row in table.to_pylist()]


def test_a_worker_killed_in_the_middle_changes_nothing(
    digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Pool(tmp_path / "whole", teacher, digits)
    undisturbed = whole.rows(whole.label())
    marks = tmp_path / "marks"
    marks.mkdir()

    class Dying(pipeline.PredictActor):
        """Kills its own process three times over the third shard: once more than Ray hands it out again by itself."""

        def _label(self, shard: int) -> dict[str, Any]:
            if shard == 2 and len(list(marks.iterdir())) < 3:
                (marks / f"{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._label(shard)

    monkeypatch.setattr(pipeline, "PredictActor", Dying)
    broken = Pool(tmp_path / "broken", teacher, digits)
    output = broken.label()
    assert len(list(marks.iterdir())) == 3, "the worker was not killed"
    assert broken.rows(output) == undisturbed
    names = storage.names(broken.run.store.fs, f"{output.folder}/parts")
    assert len(names) == broken.images.manifest.num_shards, "a shard was labelled twice"


def test_a_constructor_that_always_raises_ends_the_job_with_its_error(
    digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(pipeline.PredictActor):
        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            def no_device(*_: object) -> None:
                raise RuntimeError("the device is on fire")

            Predictor.__init__ = no_device  # type: ignore[assignment, method-assign]
            super().__init__(*arguments, **keywords)

    monkeypatch.setattr(pipeline, "PredictActor", Broken)
    pool = Pool(tmp_path / "store", teacher, digits, max_failures=1)
    with pytest.raises(WorkersFailedError, match="the device is on fire"):
        pool.label()


def test_a_store_that_fills_up_is_told_and_the_work_is_resumed(
    digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(pipeline.PredictActor):
        def _commit(self, labelled: PredictedShard) -> Any:
            if labelled.shard == 3:
                raise OSError(28, "No space left on device", "/disk/part")
            return super()._commit(labelled)

    pool = Pool(tmp_path / "store", teacher, digits)
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "PredictActor", Full)
        with pytest.raises(StoreError, match=r"/disk/part: cannot be written, no space is left on it.*run the same"):
            pool.label()
    kept = {path.name for path in (tmp_path / "store/steps").glob("predict-*/parts/*.parquet")}
    assert kept
    output = pool.label()
    assert kept <= set(storage.names(pool.run.store.fs, f"{output.folder}/parts"))
    assert {part.unit for part in output.parts(pool.run.store.fs)} == set(range(pool.images.manifest.num_shards))
