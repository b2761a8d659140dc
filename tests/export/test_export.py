"""Small stores, written without a cluster, exported in every format."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.export.files import csv_lines
from engine.export.step_export import open_step
from engine.export.writers import class_folders, export, file_name, safe_json
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Step, Store
from engine.images.collection import Collection, open_collection
from engine.labels.by_key import read_table
from engine.labels.cells import FORMULA, cell, plain, plain_column
from engine.labels.classes import ClassList
from engine.labels.soft_tables import read_soft
from engine.labels.targets import dense
from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.models.imported import find_model
from engine.select.scores import pack
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.model import ModelSettings
from engine.tables import schema

NAMES = ("=cmd()", "cat", "<b>dog</b>")
KEYS = ("+evil.png", "a.png", "sub/b.png", "c.png")


class Made:
    """A store with predictions of four images and a selection of two."""

    def __init__(self, folder: Path, pool: str) -> None:
        self.store = Store(str(folder / "store"))
        run = Run(self.store, "run", ClusterSettings())
        settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
        save(folder / "model", build_model(settings, 3), settings, list(NAMES))
        self.model = find_model(run, str(folder / "model"))
        self.pool: Collection = open_collection(run, "pool", pool, SourceSettings())
        self.classes = ClassList(NAMES)
        self.predictions, self.selection = self._predict(), ""
        self.selection = self._select()

    def _predict(self) -> str:
        step = Step(self.store, StepRecord("predict", 1, {}))
        step.begin()
        step.plan(
            lambda: {"manifest": self.pool.manifest.folder.rsplit("/", 1)[-1], "collection": self.pool.manifest.uri}
        )
        shard, row = np.zeros(4, np.int32), np.arange(4, dtype=np.int32)
        classes = np.array([[0, 1], [1, 2], [2, 0], [1, 0]])
        scores = np.array([[2, -2], [0, -1], [1, -3], [4, -5]], np.float16)
        table = pack(shard, row, classes, scores, schema.predictions(3, self.classes.hash, 2))
        self.digest = step.commit([step.put_part(0, table)], {"model": self.model.step}, 0.0).digest
        return step.name

    def _select(self) -> str:
        inputs = {"predictions": self.digest}
        step = Step(self.store, StepRecord("select", 1, {}, inputs))
        step.begin()
        columns = [[0, 0], [3, 0], [1, 0], np.array([4, 2], np.float16), [0, 0], [1, 2], [[1], [0]], [[1.0], [1.0]]]
        table = pa.table(columns, schema=schema.pseudo_labels(3, self.classes.hash))
        step.commit([step.put_part(0, table)], {"selected": 2, "predictions": self.predictions}, 0.0)
        return step.name


@pytest.fixture(scope="module")
def images(digits: Path) -> list[bytes]:
    return pq.read_table(digits / "pool.parquet")["image"][:4].to_pylist()


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory, images: list[bytes]) -> Made:
    """The pool is a folder of files."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("loose")
    for key, image in zip(KEYS, images, strict=True):
        (folder / "pool" / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pool" / key).write_bytes(image)
    return Made(folder, str(folder / "pool"))


@pytest.fixture(scope="module")
def tabled(tmp_path_factory: pytest.TempPathFactory, images: list[bytes]) -> Made:
    """The pool is a Parquet file with a key column."""
    folder = tmp_path_factory.mktemp("tabled")
    pq.write_table(pa.table({"key": ["p", "q", "../r", "s"], "image": images}), folder / "pool.parquet")
    return Made(folder, str(folder / "pool.parquet"))


def test_csv_has_exact_keys_names_and_probabilities(loose: Made, tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    assert export(open_step(loose.store, loose.predictions), "csv", str(out)) == 4
    rows = list(csv.reader(out.open(newline="")))
    assert rows[0] == ["key", "shard", "row", "class", "probability", "class_2", "probability_2"]
    assert {row[0] for row in rows[1:]} == set(KEYS)
    assert rows[1][3] == "=cmd()"
    assert float(rows[2][4]) == pytest.approx(0.5)
    assert export(open_step(loose.store, loose.predictions), "csv", str(tmp_path / "safe.csv"), spreadsheets=True) == 4
    safe = list(csv.reader((tmp_path / "safe.csv").open(newline="")))
    assert not any(value.startswith(("=", "+", "@")) for row in safe for value in row)


def test_parquet_of_a_selection(tabled: Made, tmp_path: Path) -> None:
    out = tmp_path / "chosen.parquet"
    assert export(open_step(tabled.store, tabled.selection), "parquet", str(out)) == 2
    rows = pq.read_table(out).to_pylist()
    assert [(row["key"], row["class"], row["count"]) for row in rows] == [("p", "=cmd()", 2), ("s", "cat", 1)]
    assert rows[0]["probability"] == pytest.approx(1 / (1 + np.exp(-2)))


def test_label_studio_tasks(loose: Made, tmp_path: Path) -> None:
    out = tmp_path / "tasks.json"
    export(open_step(loose.store, loose.predictions), "label-studio", str(out))
    text = out.read_text()
    assert "<b>" not in text
    tasks = json.loads(text)
    assert len(tasks) == 4
    third = tasks[2]
    assert third["data"]["image"].endswith(third["data"]["key"])
    assert third["predictions"][0]["result"][0]["value"]["choices"] == ["<b>dog</b>"]
    assert third["predictions"][0]["model_version"] == loose.predictions


def test_folder_links_files_and_copies_images_from_tables(
    loose: Made, tabled: Made, images: list[bytes], tmp_path: Path
) -> None:
    export(open_step(loose.store, loose.selection), "folder", str(tmp_path / "links"))
    links = [path for path in (tmp_path / "links").rglob("*") if path.is_symlink()]
    assert len(links) == 2
    assert all(link.resolve().read_bytes() in images for link in links)
    export(open_step(tabled.store, tabled.predictions), "folder", str(tmp_path / "copies"))
    copies = sorted(path for path in (tmp_path / "copies").rglob("*") if path.is_file())
    assert sorted(path.read_bytes() for path in copies) == sorted(images)
    assert all((tmp_path / "copies") in path.resolve().parents for path in copies), "an image left the folder"


def test_nothing_is_overwritten(loose: Made, tmp_path: Path) -> None:
    out = tmp_path / "there.csv"
    out.write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        export(open_step(loose.store, loose.predictions), "csv", str(out))
    assert out.read_text() == "mine"


def test_steps_that_cannot_be_exported_raise(loose: Made) -> None:
    with pytest.raises(ValueError, match="not a finished predict or select step"):
        open_step(loose.store, loose.model.step)
    with pytest.raises(ValueError, match="not a finished predict or select step"):
        open_step(loose.store, "predict-0000")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_formulas_are_defused(text: str) -> None:
    assert cell(text) == "'" + text
    assert cell("a=b") == "a=b"
    assert plain(cell(text)) == text
    assert plain(cell("'tis")) == "'tis"
    assert plain(cell("'" + text)) == "'" + text
    assert cell("'" + text) != cell(text)


def test_a_column_is_restored() -> None:
    column = pa.chunked_array([["'=a", "b"], ["''c", None, "'-d"]], pa.string())
    assert plain_column(column).to_pylist() == ["=a", "b", "'c", None, "-d"]


@pytest.mark.parametrize("kind", ["soft-csv", "soft-parquet", "npy"])
def test_exported_soft_labels_are_read_back(loose: Made, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"soft.{ {'soft-csv': 'csv', 'soft-parquet': 'parquet', 'npy': 'npy'}[kind] }"
    assert export(open_step(loose.store, loose.predictions), kind, str(out)) == 4
    keys = loose.pool.manifest.keys()["key"]
    labels = read_soft(str(out), "distribution", loose.classes, keys)
    odds = np.array([[2, -2, np.nan], [np.nan, 0, -1], [-3, np.nan, 1], [-5, 4, np.nan]])
    listed = 1 / (1 + np.exp(-odds))
    expected = np.where(np.isnan(listed), np.clip(1 - np.nansum(listed, 1, keepdims=True), 0, None), listed)
    expected /= expected.sum(1, keepdims=True)
    made = dense(labels.targets, 3)[np.argsort(labels.position)]
    np.testing.assert_allclose(made, expected, atol=2e-3)


def test_a_selection_cannot_be_exported_as_soft_labels(loose: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Use a predict-… step"):
        export(open_step(loose.store, loose.selection), "soft-csv", str(tmp_path / "x.csv"))


def test_names_cannot_leave_the_folder() -> None:
    folders = class_folders(("../../etc", "a/b", "cat", "Cat", "..", "dog"))
    assert len(set(map(str.lower, folders.values()))) == 6
    assert not any("/" in one or one.startswith(".") for one in folders.values())
    assert folders["dog"] == "dog"
    assert file_name(1, 2, "x/../../y z.png") == "000001-000002-y_z.png"
    assert safe_json({"a": "</script>&"}) == '{"a": "\\u003c/script\\u003e\\u0026"}'


AWKWARD = ["=1+1", "+1", "-1.jpg", "@x", "'=1+1", "'tis", "''", "\t=1", "007", "a,b", 'say "x"']


@pytest.mark.parametrize("spreadsheets", [False, True])
def test_every_key_comes_back_from_csv_as_it_was(tmp_path: Path, spreadsheets: bool) -> None:
    (tmp_path / "x.csv").write_bytes(csv_lines([[one, one] for one in AWKWARD], ["key", "=class"], spreadsheets))
    table = read_table(str(tmp_path / "x.csv"), ("key", "=class"))
    assert table.column_names == ["key", "=class"]
    assert table["key"].to_pylist() == AWKWARD
    raw = list(csv.reader((tmp_path / "x.csv").read_text().splitlines()))[1:]
    exact = [row[0] for row in raw] == AWKWARD
    assert exact != spreadsheets, "what other programs read is exact unless spreadsheets were asked for"
    assert not spreadsheets or not any(row[0].startswith(FORMULA) for row in raw)


def test_spreadsheets_are_csv(loose: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--spreadsheets is for CSV"):
        export(open_step(loose.store, loose.predictions), "parquet", str(tmp_path / "x"), spreadsheets=True)
    assert (
        export(open_step(loose.store, loose.predictions), "soft-csv", str(tmp_path / "s.csv"), spreadsheets=True) == 4
    )
    keys = loose.pool.manifest.keys()["key"]
    assert len(read_soft(str(tmp_path / "s.csv"), "distribution", loose.classes, keys).position) == 4
