"""Active learning: by uncertainty, disagreement and diversity, without near duplicates."""

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.export.active import ActiveQuery, find_next_to_label
from engine.export.step_export import open_step
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Step, Store, read_output
from engine.images.collection import open_collection
from engine.labels.classes import ClassList
from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.models.imported import find_model
from engine.select.scores import pack
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.model import ModelSettings
from engine.tables import schema
from jobs import active, cli

CLASSES = ClassList(("cat", "dog"))
GAPS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
"""Log-odds of the best class of images 0 to 7: the first four are cats, the others dogs; image 1 is nearly a copy of image 0."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str]]:
    """Two teachers' predictions of eight images."""
    folder = tmp_path_factory.mktemp("active")
    random = np.random.default_rng(0)
    (folder / "pool").mkdir()
    drawn = [Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((40, 40)) for _ in GAPS]
    drawn[1] = drawn[0].resize((44, 44))
    for i, image in enumerate(drawn):
        image.save(folder / "pool" / f"{i}.png")
    store = Store(str(folder / "store"))
    run = Run(store, "run", ClusterSettings())
    settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
    save(folder / "model", build_model(settings, 2), settings, list(CLASSES.names))
    model = find_model(run, str(folder / "model"))
    pool = open_collection(run, "pool", str(folder / "pool"), SourceSettings())
    first = np.array(GAPS)
    second = first * np.array([1, 1, 1, -1, 1, -9, 1, 1])  # the other teacher disagrees on 3, and strongly on 5
    steps = []
    for number, odds in enumerate((first, second)):
        sure = np.abs(odds).astype(np.float16)
        dog = (np.arange(8) >= 4) ^ (odds < 0)
        classes = np.stack([dog, ~dog], axis=1).astype(np.uint16)
        step = Step(store, StepRecord("predict", 1, {"number": number}))
        step.begin()
        step.put_json(
            "plan.json", {"manifest": pool.manifest.folder.rsplit("/", 1)[-1], "collection": pool.manifest.uri}
        )
        address = (np.zeros(8, np.int32), np.arange(8, dtype=np.int32))
        table = pack(*address, classes, np.stack([sure, -sure], 1), schema.predictions(2, CLASSES.hash, 2))
        step.commit([step.put_part(0, table)], {"model": model.step}, 0.0)
        steps.append(step.name)
    return store, steps


def wanted(store: tuple[Store, list[str]], query: ActiveQuery) -> list[str]:
    answers = open_step(store[0], store[1][0])
    other = read_output(store[0], store[1][1]) if query.by == "disagreement" else None
    table = find_next_to_label(answers, query, other)
    assert [str(i) + ".png" for i in table["row"].to_pylist()] == table["key"].to_pylist()
    assert table["class"].to_pylist() == ["cat" if i < 4 else "dog" for i in table["row"].to_pylist()]
    return [key.removesuffix(".png") for key in table["key"].to_pylist()]


def test_the_most_uncertain_without_near_duplicates(store: tuple[Store, list[str]]) -> None:
    """Image 1 would be second of its class, but is a near duplicate of image 0."""
    assert wanted(store, ActiveQuery("uncertainty", 2)) == ["0", "2", "4", "5"]
    assert wanted(store, ActiveQuery("uncertainty", 9)) == ["0", "2", "3", "4", "5", "6", "7"]


def test_the_largest_disagreement(store: tuple[Store, list[str]]) -> None:
    assert wanted(store, ActiveQuery("disagreement", 1)) == ["3", "5"]


def test_diversity_starts_with_the_most_uncertain(store: tuple[Store, list[str]]) -> None:
    found = wanted(store, ActiveQuery("diversity", 3))
    assert set(found[:3]) == {"0", "2", "3"}
    assert (found[0], found[3]) == ("0", "4")


def test_a_list_is_written(store: tuple[Store, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [store[0].uri, store[1][0], "--per-class", "1", "--out"]
    monkeypatch.setattr(sys, "argv", ["active", *arguments, str(tmp_path / "next.csv")])
    active.main()
    with (tmp_path / "next.csv").open(newline="") as file:
        assert [(row["key"], row["class"]) for row in csv.DictReader(file)] == [("0.png", "cat"), ("4.png", "dog")]
    monkeypatch.setattr(sys, "argv", ["active", *arguments, str(tmp_path / "next.parquet")])
    active.main()
    assert pq.read_table(tmp_path / "next.parquet")["key"].to_pylist() == ["0.png", "4.png"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--by", "disagreement"], "Give --second with"),
        (["--second", "predict-0"], "Give --second with"),
        (["--per-class", "0"], "must be at least 1"),
        (["--duplicate-distance", "64"], "8 is usual"),
        ([], "already exists"),
    ],
)
def test_user_errors_are_one_paragraph(
    store: tuple[Store, list[str]],
    tmp_path: Path,
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there.csv").write_text("")
    monkeypatch.setattr(sys, "argv", ["active", store[0].uri, store[1][0], "--out", str(tmp_path / "there.csv"), *more])
    with pytest.raises(SystemExit):
        cli.run(active.main)
    assert message in capsys.readouterr().err
