"""A selection in the order of the pool: the same rows, each range in one part, whoever sorts them and however often it is cut off."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.gather import arrange as arranging
from engine.gather.arrange import Arranged, arrange, shard_ranges
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Step, Store, StoreError
from engine.images.collection import Collection, open_collection
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings

SHARDS, ROWS = 60, 5
PICKED = 200


def collection(run: Run, folder: Path) -> Collection:
    """300 rows in 60 shards; nothing reads their pixels."""
    path = folder / "pool.parquet"
    if not path.exists():
        pq.write_table(pa.table({"image": [b"x"] * SHARDS * ROWS}), path)
    return open_collection(run, "pool", str(path), SourceSettings(rows_per_shard=ROWS))


def picks(run: Run) -> tuple[Output, list[tuple[int, int, int]]]:
    """Rows of random images, some of two classes, in three parts by class."""
    rng = np.random.default_rng(0)
    index = np.sort(rng.choice(SHARDS * ROWS * 3, PICKED, replace=False))
    address, classes = index // 3, index % 3
    table = pa.table(
        {
            "shard": pa.array(address // ROWS, pa.int32()),
            "row": pa.array(address % ROWS, pa.int32()),
            "class": pa.array(classes, pa.uint16()),
        }
    )

    def work(step: Step) -> Output:
        order = rng.permutation(PICKED)
        parts = [step.put_part(c, table.take(pa.array(order[classes[order] == c]))) for c in range(3)]
        return step.commit(parts, {}, 0.0)

    rows = list(zip(*(table[name].to_pylist() for name in ("shard", "row", "class")), strict=True))
    return run.find_or_run_step("select", StepRecord("select", 1), work), rows


def rows_of(arranged: Arranged) -> list[tuple[int, int, int]]:
    table = pa.concat_tables(arranged.tables())
    return list(zip(*(table[name].to_pylist() for name in ("shard", "row", "class")), strict=True))


def test_the_driver_sorts_few_rows_itself(tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "store")), "run", ClusterSettings())
    output, rows = picks(run)
    arranged = arrange(run, "order", output, collection(run, tmp_path))
    assert rows_of(arranged) == rows
    shards, counts = arranged.counts()
    wanted, expected = np.unique([row[0] for row in rows], return_counts=True)
    assert shards.tolist() == wanted.tolist()
    assert counts.tolist() == expected.tolist()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_workers_make_the_same_parts_range_by_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arranging, "RANGE_ROWS", 70)
    run = Run(Store(str(tmp_path / "store")), "run", ClusterSettings())
    output, rows = picks(run)
    pool = collection(run, tmp_path)
    here = arrange(run, "order", output, pool)
    monkeypatch.setattr(arranging, "FEW_ROWS", 0)
    other = Run(Store(str(tmp_path / "other")), "run", ClusterSettings())
    there = arrange(other, "order", picks(other)[0], pool)
    assert there.output.digest == here.output.digest
    assert rows_of(there) == rows
    assert len(there.output.parts(other.store.fs)) == 5
    some = np.array([3, 4, 31, 59])
    found = there.read(some)
    assert list(zip(*(found[name].to_pylist() for name in ("shard", "row", "class")), strict=True)) == [
        row for row in rows if row[0] in some
    ]
    assert not Path(there.output.folder, arranging.SCATTERED).exists()


def test_a_changed_part_is_refused(tmp_path: Path) -> None:
    run = Run(Store(str(tmp_path / "store")), "run", ClusterSettings())
    arranged = arrange(run, "order", picks(run)[0], collection(run, tmp_path))
    path = next(Path(arranged.output.folder, "parts").iterdir())
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start + chunk.total_compressed_size - 1] ^= 1  # the last byte of a page, which only its checksum guards
    path.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=path.name):
        arranged.read(np.arange(SHARDS))
    with pytest.raises(StoreError, match=path.name):
        list(arranged.tables())
    counts = next(Path(arranged.output.folder, arranging.COUNTS).iterdir())
    counts.write_bytes(counts.read_bytes() + b"x")
    with pytest.raises(StoreError, match=arranging.COUNTS):
        arranged.counts()


def test_ranges_cover_all_shards_once() -> None:
    rows = np.array([5, 0, 7, 100, 1, 1, 1])
    spans = shard_ranges(rows, 10)
    assert [(one.first, one.end) for one in spans] == [(0, 3), (3, 4), (4, 7)]
    assert [one.unit for one in spans] == [0, 1, 2]
    assert [(one.first, one.end) for one in shard_ranges(rows, 10**6)] == [(0, 7)]
