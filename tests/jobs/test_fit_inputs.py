"""What `jobs.fit` trains on: pseudo-labels of the pool as it is now and of the run's classes, every stream that was given, no evaluation image."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from engine.fit.source import GatheredSource
from engine.gather.pipeline import gather
from engine.ground import storage
from engine.ground.run import Run
from engine.ground.steps import read_tables
from engine.images.collection import open_collection
from engine.images.scope import Scope
from engine.labels.classes import ClassList
from engine.labels.stored import check_classes
from engine.models.fetch import teacher_classes
from engine.select.pipeline import SelectSpec, select
from engine.settings.block import SettingsError, parse
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.jobs import FitJobSettings
from jobs.fit import hash_sets, make_streams, open_selection
from tests.fake_run import CLASSES, SELECT, FakeRun, Image, fake_run, put_model
from tests.images import making

SEEN = [Image("b.jpg", -3.0), Image("c.jpg", 3.0), Image("d.jpg", 4.0)]
WITH_ANT = ClassList(("ant", "cat", "dog"))


@pytest.fixture
def fake(tmp_path: Path) -> FakeRun:
    """A finished run whose predict step says what it predicted."""
    made = fake_run(tmp_path, [SEEN])
    manifest = made.pool.manifest
    plan = b'{"manifest": "%s", "collection": "%s"}' % (
        manifest.folder.rsplit("/", 1)[-1].encode(),
        manifest.uri.encode(),
    )
    storage.put(made.store.fs, f"{made.steps['generation 1 predict'].folder}/plan.json", plan)
    return made


def run_of(fake: FakeRun) -> Run:
    return Run(fake.store, "fit", ClusterSettings())


def test_a_selection_goes_with_the_pool_it_was_made_from(fake: FakeRun) -> None:
    selection = fake.steps["generation 1 select"]
    assert open_selection(run_of(fake), selection.step, fake.pool, CLASSES).digest == selection.digest


@pytest.mark.parametrize(
    ("name", "difference"),
    [
        ("a.jpg", r"4 images then .*, 5 now; added: a\.jpg\. Predict"),
        (None, r"4 images then .*, 3 now; removed: b\.jpg\. Predict"),
    ],
)
def test_a_pool_that_changed_is_refused_with_the_difference(
    fake: FakeRun, tmp_path: Path, name: str | None, difference: str
) -> None:
    if name is None:
        (tmp_path / "pool" / "b.jpg").unlink()
    else:
        making.folder(tmp_path / "pool", [name], first=50)
    changed = open_collection(run_of(fake), "pool", str(tmp_path / "pool"), SourceSettings())
    with pytest.raises(ValueError, match=difference):
        open_selection(run_of(fake), fake.steps["generation 1 select"].step, changed, CLASSES)


def test_a_selection_of_other_classes_is_refused_with_their_names(fake: FakeRun) -> None:
    with pytest.raises(ValueError, match="its 2 classes differ from the 3 of this run: it lacks 'ant'"):
        open_selection(run_of(fake), fake.steps["generation 1 select"].step, fake.pool, WITH_ANT)


@pytest.mark.parametrize("label", ["generation 1 predict", "teacher fit"])
def test_only_a_selection_is_one(fake: FakeRun, label: str) -> None:
    with pytest.raises(ValueError, match="not a finished select step"):
        open_selection(run_of(fake), fake.steps[label].step, fake.pool, CLASSES)


def test_every_verb_that_reads_a_table_refuses_other_classes(fake: FakeRun) -> None:
    run, message = run_of(fake), "its table is of 2 classes .* this run has 3"
    chosen, predictions = fake.steps["generation 1 select"], fake.steps["generation 1 predict"]
    check_classes(chosen, fake.store, CLASSES)
    with pytest.raises(ValueError, match=message):
        gather(run, "gather", chosen, Scope(fake.pool), WITH_ANT)
    with pytest.raises(ValueError, match=message):
        select(run, "select", predictions, SelectSpec(SELECT, WITH_ANT))
    with pytest.raises(ValueError, match=r"select-\w+: its table is of 2 classes"):
        select(run, "select", predictions, SelectSpec(SELECT, CLASSES, keep=other_selection(run)))
    put_model(fake.store, fake.steps["teacher fit"].folder, WITH_ANT)
    with pytest.raises(ValueError, match=message):  # preview, export, explain and active name classes by it
        teacher_classes(fake.store, predictions)


def other_selection(run: Run) -> Any:
    """A selection whose class list is swapped."""
    from engine.tables import schema
    from tests.fake_run import made

    form = schema.pseudo_labels(2, ClassList(("dog", "cat")).hash)
    return made(run, "swapped", "select", form.empty_table(), {})


def job(tmp_path: Path, **changes: Any) -> FitJobSettings:
    tree = {
        "run": "fit",
        "store": str(tmp_path / "store"),
        "data": {"labelled": str(tmp_path / "labelled"), "pool": str(tmp_path / "pool")},
        "model": {"model": "resnet8_cifar", "img_size": 8},
        "fit": {"steps": 1, "batch": {"labelled": 1}},
        **changes,
    }
    return parse(FitJobSettings, tree, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pseudo": "select-1"}, "pseudo is set, but fit.batch={'labelled': 1} has no images of it"),
        ({"soft": {"table": "a.npy"}}, "soft is set, but fit.batch"),
        ({"fit": {"steps": 1, "batch": {"labelled": 1, "pseudo": 1}}}, "names the stream pseudo, which needs pseudo"),
        ({"fit": {"steps": 1, "batch": {"labelled": 1, "soft": 1}}}, "names the stream soft, which needs soft.table"),
        ({"fit": {"steps": 1, "batch": {"labelled": 1, "pol": 1}}}, "stream 'pol' is unknown"),
        (
            {
                "pseudo": "select-1",
                "data": {"labelled": "a"},
                "fit": {"steps": 1, "batch": {"labelled": 1, "pseudo": 1}},
            },
            "Set data.pool",
        ),
    ],
)
def test_streams_and_what_they_come_from_go_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        job(tmp_path, **changes)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_test_images_in_the_pool_are_not_trained_on(fake: FakeRun, tmp_path: Path) -> None:
    making.folder(tmp_path / "test", ["cat/1.jpg", "dog/1.jpg"], first=200)
    (tmp_path / "test" / "cat" / "2.jpg").write_bytes((tmp_path / "pool" / "d.jpg").read_bytes())
    run = run_of(fake)
    (tmp_path / "soft.csv").write_text("key,cat,dog\nc.jpg,1,0\nd.jpg,1,0\n")
    settings = job(
        tmp_path,
        pseudo=fake.steps["generation 1 select"].step,
        soft={"table": str(tmp_path / "soft.csv")},
        data={"labelled": str(tmp_path / "labelled"), "pool": str(tmp_path / "pool"), "test": str(tmp_path / "test")},
        fit={"steps": 1, "batch": {"labelled": 1, "pseudo": 1, "soft": 1}},
    )
    labelled = open_collection(run, "labelled", settings.data.labelled, settings.data, labelled=True)
    streams = make_streams(run, settings, labelled, CLASSES, hash_sets(run, settings.data, labelled))
    keys = {}
    for name, source in streams.items():
        assert isinstance(source, GatheredSource)
        tables = (table for _, table in read_tables(source.output, run.store.fs))
        keys[name] = sorted(pa.concat_tables(tables)["key"].to_pylist())
    assert keys == {"labelled": ["cat/1.jpg", "dog/1.jpg"], "pseudo": ["b.jpg", "c.jpg"], "soft": ["c.jpg"]}
    (tmp_path / "test" / "dog" / "2.jpg").write_bytes((tmp_path / "labelled" / "dog" / "1.jpg").read_bytes())
    with pytest.raises(ValueError, match="labelled and test share 1 image"):
        hash_sets(run, settings.data, labelled)
