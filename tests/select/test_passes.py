"""Selections on Ray: over the disk or in memory, undisturbed or cut off, the same parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store
from engine.select import part_groups
from engine.select.pipeline import SelectSpec, select
from engine.select.two_pass import ScoreBins
from engine.settings.cluster import ClusterSettings
from engine.settings.select import SelectSettings
from tests.select.tables import Pool, random_pool

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

IN_MEMORY, ON_DISK = ClusterSettings(), ClusterSettings(select_state_bytes=0)


def predicted(run: Run, pool: Pool, num_parts: int = 5) -> Output:
    """A finished predict step."""

    def work(step: Step) -> Output:
        pieces = np.array_split(np.arange(len(pool.shard)), num_parts)
        return step.commit([step.put_part(unit, pool.table(piece)) for unit, piece in enumerate(pieces)], {}, 0.0)

    return run.find_or_run_step("predict", StepRecord("predict", 1), work)


@pytest.fixture
def pool() -> Pool:
    return random_pool(2000, 6, 3, seed=0)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_groups, "SHARE_ROWS", 700)
    monkeypatch.setattr(part_groups, "PART_ROWS", 120)


def selected(folder: Path, pool: Pool, cluster: ClusterSettings, **settings: Any) -> tuple[Output, Run]:
    run = Run(Store(str(folder)), "r", cluster)
    spec = SelectSpec(SelectSettings(**settings), pool.manifest)
    return select(run, "select", predicted(run, pool), spec), run


@pytest.mark.parametrize(
    "mode",
    [
        {"per_class": 50},
        {"cut": "softmatch", "balance": "duplicate", "per_class": 90, "targets": "hard"},
        {"threshold": 0.999999},
    ],
    ids=["top-k", "drawn", "nothing"],
)
def test_the_same_parts_on_either_route(tmp_path: Path, pool: Pool, mode: dict[str, Any]) -> None:
    one, _ = selected(tmp_path / "one", pool, IN_MEMORY, **mode)
    two, run = selected(tmp_path / "two", pool, ON_DISK, **mode)
    assert one.digest == two.digest
    assert one.summary == two.summary
    assert [part.rows for part in one.parts(run.store.fs)] == [part.rows for part in two.parts(run.store.fs)]
    assert not {"counted", "sifted"} & {path.name for path in Path(two.folder).iterdir()}


def test_a_selection_that_was_cut_off_goes_on(tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after it has counted, and again after some classes are ranked: what is there is not made again."""
    whole, _ = selected(tmp_path / "whole", pool, ON_DISK, per_class=50)
    with monkeypatch.context() as patched:
        patched.setattr(ScoreBins, "lowest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            selected(tmp_path / "cut", pool, ON_DISK, per_class=50)
    with monkeypatch.context() as patched:
        patched.setattr(part_groups, "count_share", lambda *_: 1 / 0)  # nothing is left to count
        patched.setattr(Step, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            selected(tmp_path / "cut", pool, ON_DISK, per_class=50)
    folder = next((tmp_path / "cut" / "steps").glob("select-*"))
    assert len(list((folder / "sifted").iterdir())) == 3
    parts = sorted((folder / "parts").iterdir())
    parts[1].unlink()
    for name in ("count_share", "filter_share"):
        monkeypatch.setattr(part_groups, name, lambda *_: 1 / 0)
    again, _ = selected(tmp_path / "cut", pool, ON_DISK, per_class=50)
    assert again.digest == whole.digest
    assert set(parts) - {parts[1]} < set((folder / "parts").iterdir())
