"""A sample measured on a real Ray, end to end, as `jobs.plan` does it."""

from pathlib import Path

import pytest

from engine.ground.resources import predict_actors
from engine.ground.steps import Store
from engine.images.scope import Scope
from engine.plan.measure import measure
from tests.predict.test_faults import SETTINGS, Pool
from tests.predict.test_shard_predictor import teacher as teacher  # the fixture

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_a_sample_is_measured_and_nothing_is_left_behind(digits: Path, teacher: Path, tmp_path: Path) -> None:
    pool = Pool(tmp_path / "store", teacher, digits)
    before = sorted(path for path in (tmp_path / "store").rglob("*") if path.is_file())
    actors = predict_actors(pool.run.cluster, pool.images.manifest.num_shards)
    found, plan = measure(Store(str(tmp_path / "store")), Scope(pool.images), pool.model, SETTINGS, actors, 128)
    assert 128 <= found.images < 128 + 64, "more shards than the sample needs"
    assert min(found.decode, found.infer, found.write, found.select, found.boot, found.resident) > 0
    assert found.start_up > found.boot
    assert 5 < found.prediction_bytes < 60
    assert plan["predict"] == {"batch_size": 16, "backend": "eager"}
    assert sorted(path for path in (tmp_path / "store").rglob("*") if path.is_file()) == before
