"""A selection is gathered from the images and for the classes that it was made of, or refused with the difference."""

import json
import re
from pathlib import Path

import pytest

from engine.gather.same_images import check_same_classes, check_same_images
from engine.ground import storage
from engine.ground.run import Run
from engine.ground.steps import Store
from engine.images.collection import Collection, open_collection
from engine.labels.classes import ClassList
from engine.settings.block import SettingsError, parse
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.jobs import FitJobSettings
from tests.fake_run import CLASSES, FakeRun, Image, fake_run
from tests.images import making


@pytest.fixture
def finished(tmp_path: Path) -> FakeRun:
    run = fake_run(tmp_path, [[Image("img1.jpg", 3.0), Image("img3.jpg", -3.0)]])
    plan = {"manifest": run.pool.manifest.folder.rsplit("/", 1)[-1], "collection": run.pool.manifest.uri}
    folder = run.steps["generation 1 predict"].folder
    storage.put(run.store.fs, f"{folder}/plan.json", json.dumps(plan).encode())
    return run


def reopened(run: FakeRun, folder: Path) -> Collection:
    return open_collection(Run(Store(run.store.uri), "r", ClusterSettings()), "pool", str(folder), SourceSettings())


def test_the_same_images_pass(finished: FakeRun, tmp_path: Path) -> None:
    check_same_images(finished.store, finished.steps["generation 1 select"], reopened(finished, tmp_path / "pool"))


def test_a_pool_that_has_grown_would_move_every_label(finished: FakeRun, tmp_path: Path) -> None:
    """Addresses count images: with img0 before them, the labels of img1 and img3 would land on img0 and img1."""
    (tmp_path / "pool" / "img0.jpg").write_bytes(making.jpeg(9))
    with pytest.raises(ValueError, match=r"select-\w+: .*3 images then, 4 now; 1 new \(img0\.jpg\)"):
        check_same_images(finished.store, finished.steps["generation 1 select"], reopened(finished, tmp_path / "pool"))


def test_another_pool_of_the_same_size_is_refused_too(finished: FakeRun, tmp_path: Path) -> None:
    making.folder(tmp_path / "other", ["img1.jpg", "img4.jpg", "zz-broken.jpg"])
    with pytest.raises(ValueError, match=r"3 images then and now; 1 gone \(img3\.jpg\); 1 new \(img4\.jpg\)"):
        check_same_images(finished.store, finished.steps["generation 1 select"], reopened(finished, tmp_path / "other"))


@pytest.mark.parametrize(
    ("names", "difference"),
    [(("ant", "cat", "dog"), "it lacks 'ant'"), (("dog", "cat"), "same names in another order, first at index 0")],
)
def test_indices_of_other_classes_are_refused(finished: FakeRun, names: tuple[str, ...], difference: str) -> None:
    pseudo = finished.steps["generation 1 select"]
    check_same_classes(finished.store, pseudo, CLASSES)
    with pytest.raises(ValueError, match=re.escape(difference)):
        check_same_classes(finished.store, pseudo, ClassList(names))


def fit_job(batch: dict[str, int], **changed: object) -> FitJobSettings:
    tree = {"run": "r", "data": {"labelled": "l", "pool": "p"}, "model": {"model": "resnet18"}}
    return parse(FitJobSettings, {**tree, "fit": {"steps": 1, "batch": batch}, **changed}, "fit")


@pytest.mark.parametrize(
    ("batch", "changed", "message"),
    [
        (
            {"labelled": 8},
            {"pseudo": "select-1"},
            "pseudo is set, but fit.batch draws nothing from it: set fit.batch={labelled: 8, pseudo: 64}",
        ),
        ({"labelled": 8}, {"soft": {"table": "t.csv"}}, "soft is set, but fit.batch draws nothing from it"),
        ({"labelled": 8, "pseudo": 8}, {}, "fit.batch has a stream pseudo, and nothing gives its images: set pseudo"),
        ({"labelled": 8, "tags": 8}, {}, "fit.batch has a stream tags; the streams are labelled, pseudo, soft, pool"),
        ({"pool": 8}, {"data": {"labelled": "l"}}, "fit.batch.pool draws images of data.pool: set data.pool"),
    ],
)
def test_streams_that_would_be_dropped_or_missing_are_refused(
    batch: dict[str, int], changed: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        fit_job(batch, **changed)


def test_streams_with_sources_pass() -> None:
    assert fit_job({"labelled": 8, "pseudo": 8}, pseudo="select-1").pseudo == "select-1"
    assert fit_job({"soft": 8}, soft={"table": "t.csv"}).soft is not None
