"""Which images a selection leaves out: a plain loop says the same, for any split of the work."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store, read_tables
from engine.images.collection import Collection, open_collection
from engine.select import exclusion
from engine.select.addresses import BestOfGroups, addresses, drop_addresses, isin_sorted
from engine.select.exclusion import ReferenceSets, addresses_of, read_keys
from engine.select.pipeline import SelectSpec, select
from engine.select.scores import tie_hash
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.select import SelectSettings
from tests.select.tables import Pool, random_pool


def test_best_of_each_group_by_plain_loop() -> None:
    pool = random_pool(300, 5, 2, seed=0)
    at = addresses(pool.table())
    random = np.random.default_rng(0)
    chosen = random.permutation(300)[:120]
    group_of = dict(zip(at[chosen].tolist(), random.integers(0, 40, 120).tolist(), strict=True))
    members = np.array(sorted(group_of))
    group = np.array([group_of[address] for address in members.tolist()])
    ties = tie_hash(pool.shard, pool.row)
    best: dict[int, tuple[float, int, int]] = {}
    for i, address in enumerate(at.tolist()):
        if address in group_of:
            entry = (-float(pool.log_odds[i, 0]), int(ties[i]), address)
            best[group_of[address]] = min(best.get(group_of[address], entry), entry)
    workers = [BestOfGroups(members, group) for _ in range(3)]
    for i, piece in enumerate(np.array_split(random.permutation(300), 7)):
        workers[i % 3].update(pool.table(piece), pool.log_odds[piece, 0].copy())
    for other in workers[1:]:
        workers[0].merge(other)
    beaten = workers[0].beaten()
    assert set(beaten.tolist()) == set(group_of) - {address for _, _, address in best.values()}
    rest = drop_addresses(pool.table(), beaten)
    assert set(addresses(rest).tolist()) == set(at.tolist()) - set(beaten.tolist())
    assert not isin_sorted(at, np.empty(0, np.int64)).any()


def test_keys_are_read_and_found(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [f"k{i}" for i in range(9)], "image": [b"x"] * 9}), tmp_path / "pool.parquet")
    run = Run(Store(str(tmp_path / "store")), "r", ClusterSettings())
    pool = open_collection(
        run, "pool", str(tmp_path / "pool.parquet"), SourceSettings(key_column="id", rows_per_shard=4)
    )
    (tmp_path / "keys.txt").write_text("k7\n\n k2 \nnobody\nk7\n")
    keys = read_keys(str(tmp_path / "keys.txt"))
    assert keys == ["k2", "k7", "nobody"]
    assert addresses_of(pool.manifest, keys).tolist() == [2, 1 << 32 | 3]
    with pytest.raises(ValueError, match="no readable text file of keys"):
        read_keys(str(tmp_path / "missing.txt"))


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_selection_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, beaten near duplicates and images near a known set are gone, told by number; either route gives the same parts."""
    count = 60
    pq.write_table(
        pa.table({"id": [f"k{i}" for i in range(count)], "image": [b"x"] * count}), tmp_path / "pool.parquet"
    )
    drawn = random_pool(count, 3, 2, seed=1)
    zeros = np.zeros(count, np.int32)
    pool = Pool(drawn.manifest, zeros, np.arange(count, dtype=np.int32), drawn.classes, drawn.log_odds)
    (tmp_path / "keys.txt").write_text("k3\nk50\n")
    groups = {10: 0, 11: 0, 12: 0, 20: 1, 21: 1}
    order = sorted(
        range(count),
        key=lambda i: (-float(pool.log_odds[i, 0]), int(tie_hash(zeros[i : i + 1], pool.row[i : i + 1])[0])),
    )
    best = {next(i for i in order if groups.get(i) == group) for group in (0, 1)}
    gone = {3, 50, 40} | (set(groups) - best)

    def like(run: Run, label: str, *_: object) -> Output:
        def work(step: Step) -> Output:
            grouped = {
                "shard": zeros[:5],
                "row": np.array(list(groups), np.int32),
                "group": np.array(list(groups.values())),
            }
            close = {"shard": zeros[:1], "row": np.array([40], np.int32), "group": np.array([-1])}
            return step.commit([step.put_part(i, pa.table(one)) for i, one in enumerate((grouped, close))], {}, 0.0)

        return run.find_or_run_step(label, StepRecord("likeness", 1), work)

    monkeypatch.setattr(exclusion, "find_near_duplicates", like)
    settings = SelectSettings(exclude_keys=str(tmp_path / "keys.txt"), near_duplicates=4)
    digests = set()
    for limit in (0, 2**28):
        run = Run(Store(str(tmp_path / f"store {limit}")), "r", ClusterSettings(select_state_bytes=limit))
        collection = open_collection(run, "pool", str(tmp_path / "pool.parquet"), SourceSettings(key_column="id"))
        around = ReferenceSets(Collection("pool", collection.manifest))

        def work(step: Step) -> Output:
            pieces = np.array_split(np.arange(count), 4)
            return step.commit([step.put_part(unit, pool.table(piece)) for unit, piece in enumerate(pieces)], {}, 0.0)

        predictions = run.find_or_run_step("predict", StepRecord("predict", 1), work)
        with pytest.raises(ValueError, match="do not say where it is"):
            select(run, "select", predictions, SelectSpec(settings, pool.manifest))
        output = select(run, "select", predictions, SelectSpec(settings, pool.manifest, around=around))
        digests.add(output.digest)
        table = pa.concat_tables(table for _, table in read_tables(output, run.store.fs))
        assert set(table["row"].to_pylist()) == set(range(count)) - gone
        assert output.summary["left out"] == {
            "named by key": 2,
            "near a better-scored image": 3,
            "near a labelled or evaluation image": 1,
        }
    assert len(digests) == 1
