"""Soft labels of another tool as a step: the targets stand at the images that the table names, whatever the file's form."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.gather import soft
from engine.gather.soft import import_soft
from engine.ground.run import Run
from engine.ground.steps import Output, Store, read_tables
from engine.images.collection import Collection, open_collection
from engine.labels.classes import ClassList
from engine.labels.targets import Targets, dense
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.jobs import SoftSettings
from tests.images import making

CLASSES = ClassList(("cat", "dog"))
NAMED = ["d.jpg", "a.jpg", "c.jpg"]
ROWS = [[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]
"""Of cat and dog; `b.jpg` is not named."""


def npy(folder: Path) -> Path:
    np.save(folder / "soft.npy", np.array(ROWS, np.float32)[:, ::-1])  # the columns go by name
    (folder / "soft.classes.json").write_text(json.dumps(["dog", "cat"]))
    (folder / "soft.keys.csv").write_text("\n".join(["key", *NAMED]) + "\n")
    return folder / "soft.npy"


def csv(folder: Path) -> Path:
    lines = [f"{key},{cat},{dog}" for key, (cat, dog) in zip(NAMED, ROWS, strict=True)]
    (folder / "soft.csv").write_text("\n".join(["key,cat,dog", *lines]) + "\n")
    return folder / "soft.csv"


def parquet(folder: Path) -> Path:
    values = pa.array(ROWS, pa.list_(pa.float32(), 2))
    table = pa.table({"key": NAMED, "values": values}).replace_schema_metadata({"class_names": '["cat", "dog"]'})
    pq.write_table(table, folder / "soft.parquet")
    return folder / "soft.parquet"


class Imported:
    """A run with a pool of four images in two shards."""

    def __init__(self, folder: Path) -> None:
        self.run = Run(Store(str(folder / "store")), "r", ClusterSettings())
        images = making.folder(folder / "pool", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
        self.pool: Collection = open_collection(self.run, "pool", str(images), SourceSettings(rows_per_shard=2))

    def __call__(self, table: Path, **settings: object) -> Output:
        chosen = SoftSettings.model_validate({"table": str(table), **settings})
        return import_soft(self.run, "import soft", chosen, self.pool, CLASSES)

    def table(self, output: Output) -> pa.Table:
        return pa.concat_tables(table for _, table in read_tables(output, self.run.store.fs)).combine_chunks()


@pytest.fixture
def imported(tmp_path: Path) -> Imported:
    return Imported(tmp_path)


@pytest.mark.parametrize("write", [npy, csv, parquet])
def test_targets_stand_at_the_images_that_the_table_names(
    write: Callable[[Path], Path], imported: Imported, tmp_path: Path
) -> None:
    output = imported(write(tmp_path))
    assert output.step.startswith("import_labels-")
    assert output.summary == {"kind": "distribution", "images": 3}
    table = imported.table(output)
    addresses = list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))
    assert addresses == [imported.pool.manifest.find(key)[0] for key in ("a.jpg", "c.jpg", "d.jpg")]
    assert table["count"].to_pylist() == [1, 1, 1]
    targets = Targets(*(table[name].combine_chunks() for name in ("classes", "weights")))
    assert dense(targets, 2).tolist() == [[1, 0], [0.5, 0.5], [0.25, 0.75]]


def test_the_parts_are_those_of_one_table(imported: Imported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = imported.table(imported(csv(tmp_path)))
    monkeypatch.setattr(soft, "PART_ROWS", 2)
    output = imported(csv(tmp_path), kind="labels")
    assert [part.rows for part in output.parts(imported.run.store.fs)] == [2, 1]
    assert imported.table(output).select(["shard", "row", "count"]).equals(whole.select(["shard", "row", "count"]))


def test_the_step_is_found_again_until_a_file_beside_the_array_changes(imported: Imported, tmp_path: Path) -> None:
    table = npy(tmp_path)
    first = imported(table)
    assert imported(table).step == first.step
    (tmp_path / "soft.keys.csv").write_text("key\nb.jpg\na.jpg\nc.jpg\n")
    other = imported(table)
    assert other.step != first.step
    assert imported.table(other)["row"].to_pylist() == [0, 1, 0]


def test_a_table_that_is_not_there_is_named(imported: Imported, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.csv: no such file; soft\.table names a table"):
        imported(tmp_path / "gone.csv")
