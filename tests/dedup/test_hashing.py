"""Images that another collection holds are known by their content."""

from pathlib import Path

import pytest

from engine.dedup.hashing import hash_excluded
from engine.ground.run import Run
from engine.ground.steps import Store
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.settings.cluster import ClusterSettings
from engine.settings.data import ImagesSettings
from tests.images import making

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_what_the_named_collections_hold_is_excluded_under_any_name(tmp_path: Path) -> None:
    making.folder(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg"])
    making.folder(tmp_path / "other", ["z.jpg"], first=1)  # the same picture as b.jpg
    run = Run(Store(str(tmp_path / "store")), "run", ClusterSettings())
    settings = ImagesSettings(uri=str(tmp_path / "images"))
    assert hash_excluded(run, settings) is None
    exclusions = hash_excluded(run, settings.model_copy(update={"exclude": [str(tmp_path / "other")]}))
    scope = Scope(open_collection(run, "images", settings.uri, settings), exclusions)
    reasons = {
        row["key"]: scope.reason(row["key"], batch["image"][i].as_buffer())
        for batch in scope.read(0)
        for i, row in enumerate(batch.to_pylist())
    }
    assert [key for key, reason in reasons.items() if reason] == ["b.jpg"]
    assert reasons["b.jpg"] == "excluded: also in exclude 1"
