"""The recipe `probe` from end to end: rounds without pixels, predictions like any other, a folder that timm loads."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch

from engine.ground.run import Run, pointers
from engine.ground.steps import Output, Store, read_output, read_tables
from engine.images.collection import open_collection
from engine.images.decode import decode
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.images.subset import Subset
from engine.models.checkpoint import load
from engine.models.fetch import fetch_model
from engine.predict import pipeline
from engine.predict.pool import check_same_pool, pool_of
from engine.probe import cached
from engine.probe.predicting import predict
from engine.recipes.context import RecipeContext
from engine.recipes.registry import SelfTrainSettings
from engine.select.addresses import addresses
from engine.select.scores import classes_of, scores_of
from engine.settings.block import SettingsError, parse
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.predict import PredictSettings
from jobs.self_train import self_train
from tests.probe.small import probe_settings, probe_tree, put_network

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


class Probed:
    """A finished run of one round and what it left."""

    def __init__(self, folder: Path, digits: Path) -> None:
        self.digits, self.network, self.uri = digits, put_network(folder / "network"), str(folder / "store")
        self.report: dict[str, Any] = self_train(probe_settings(digits, self.uri, self.network))
        self.store = Store(self.uri)
        self.run = Run(self.store, "other", ClusterSettings())

    def step(self, title: str) -> Output:
        name = next(pointer.step for pointer in pointers(self.store, "run") if pointer.title == title)
        output = read_output(self.store, name)
        assert output is not None
        return output

    def table(self, output: Output) -> pa.Table:
        return pa.concat_tables(table for _, table in read_tables(output, self.store.fs))

    def pool(self, **changed: Any) -> Scope:
        source = SourceSettings(rows_per_shard=256)
        return Scope(open_collection(self.run, "pool", str(self.digits / "pool.parquet"), source), **changed)


@pytest.fixture(scope="module")
def probed(digits: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Probed:  # noqa: ARG001
    return Probed(tmp_path_factory.mktemp("probe"), digits)


def test_a_round_is_learned_from_the_cache_and_told_like_any_other(probed: Probed) -> None:
    teacher, student = probed.report["generations"]
    assert teacher["pseudo_labels"] is None
    assert student["pseudo_labels"] > 50
    assert student["pseudo_correct"] > 0.5
    for row in (teacher, student):
        assert row["test"]["value"] > 0.4, "ten classes of digits by chance would be 0.1"
    assert probed.step("round 1 fit").summary["images"] == 50 + student["pseudo_labels"]
    assert probed.step("teacher fit").summary["on"] == "validation"


def test_predictions_of_the_cache_are_those_of_the_saved_network(probed: Probed) -> None:
    model, settings = probed.step("round 1 fit"), PredictSettings(top_p=4, backend="eager")
    ours = probed.table(predict(probed.run, "cached", model, probed.pool(), settings))
    pixels = probed.table(pipeline.predict(probed.run, "pixels", model, probed.pool(), settings))
    np.testing.assert_array_equal(addresses(ours), addresses(pixels))
    assert ours.schema == pixels.schema
    one, other = scores_of(ours)[:, 0].astype(float), scores_of(pixels)[:, 0].astype(float)
    np.testing.assert_allclose(one, other, atol=0.03)  # features were rounded to float16
    assert (classes_of(ours)[:, 0] == classes_of(pixels)[:, 0]).mean() > 0.995


def test_timm_loads_what_was_saved(probed: Probed) -> None:
    model = probed.step("round 1 fit")
    folder = fetch_model(model, probed.store.fs)
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    loaded = load(folder)
    images = pq.read_table(probed.digits / "pool.parquet")["image"].to_pylist()[:40]
    pixels = torch.stack([decode(pa.py_buffer(image), loaded.frame) for image in images]) / 255
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (loaded.mean, loaded.std))
    with torch.inference_mode():
        best = network((pixels - mean) / std).argmax(dim=1).numpy()
    ours = probed.table(predict(probed.run, "cached", model, probed.pool(), PredictSettings(top_p=4)))
    assert (classes_of(ours)[:40, 0] == best).mean() >= 0.975
    assert loaded.class_names == [str(digit) for digit in range(10)]


def test_no_pixel_is_read_once_features_are_cached(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise AssertionError("an image was read")

    model, pool = probed.step("teacher fit"), probed.pool()
    monkeypatch.setattr(Manifest, "read", unreadable)
    output = predict(probed.run, "no pixels", model, pool, PredictSettings(top_p=3, temperature=2.0))
    assert output.summary["images"] == 1097
    again = predict(probed.run, "no pixels", model, pool, PredictSettings(top_p=3, temperature=2.0))
    assert again == output
    assert pool_of(probed.store, output) is not None


def test_images_of_other_sets_are_left_out_of_the_cache_as_of_the_pixels(
    probed: Probed, digits: Path, tmp_path: Path
) -> None:
    """Some of the pool's images also stand in the labelled set: both ways exclude the same, with the same reasons."""
    labelled = sorted((digits / "labelled").glob("*/*"))[:3]
    pool = pq.read_table(digits / "pool.parquet").slice(0, 20)
    copies = pa.table({**{n: pool[n] for n in pool.column_names}})
    images = copies["image"].to_pylist()
    images[2], images[17] = labelled[0].read_bytes(), labelled[1].read_bytes()
    images[5] = b"broken"
    place = copies.schema.get_field_index("image")
    pq.write_table(copies.set_column(place, copies.schema.field(place), pa.array(images)), tmp_path / "pool.parquet")
    tree = probe_tree(digits, probed.uri, probed.network)
    tree["data"] |= {"pool": str(tmp_path / "pool.parquet"), "rows_per_shard": 8, "max_rejected_percent": 20}
    setup = RecipeContext(probed.run, parse(SelfTrainSettings, tree, "test"))
    scope, model = setup.scope("pool"), probed.step("teacher fit")
    settings = PredictSettings(top_p=4, backend="eager")
    ours = predict(probed.run, "with twins", model, scope, settings)
    pixels = pipeline.predict(probed.run, "with twins pixels", model, scope, settings)
    assert ours.summary == pixels.summary
    assert (ours.summary["excluded"], ours.summary["rejected"]) == (2, 1)
    np.testing.assert_array_equal(addresses(probed.table(ours)), addresses(probed.table(pixels)))
    for unit in (0, 2):
        aside = [
            pq.read_table(f"{output.folder}/quarantine/{unit:08d}.parquet").to_pylist() for output in (ours, pixels)
        ]
        assert aside[0] == aside[1]


def test_a_subset_is_predicted_from_the_whole_cache(probed: Probed) -> None:
    model = probed.step("teacher fit")
    chosen = Subset.of(np.array([0, 0, 2]), np.array([5, 250, 7]))
    output = predict(probed.run, "some", model, probed.pool(chosen=chosen), PredictSettings(top_p=4))
    np.testing.assert_array_equal(addresses(probed.table(output)), chosen.addresses)
    whole = probed.table(predict(probed.run, "cached", model, probed.pool(), PredictSettings(top_p=4)))
    same = whole.filter(pa.array(np.isin(addresses(whole), chosen.addresses)))
    assert same.equals(probed.table(output))


def test_a_finished_run_computes_nothing_again_and_a_selection_knows_its_pool(
    probed: Probed, digits: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    self_train(probe_settings(digits, probed.uri, probed.network))
    assert " done in " not in capfd.readouterr().out
    selection = probed.step("round 1 select")
    assert check_same_pool(probed.store, selection, probed.pool().collection) == probed.step("round 1 predict")


def test_what_is_interrupted_between_parts_resumes(probed: Probed, monkeypatch: pytest.MonkeyPatch) -> None:
    put = cached.put_one
    done: list[Any] = []

    def stops(*arguments: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(put(*arguments))
        return done[-1]

    model, settings = probed.step("teacher fit"), PredictSettings(top_p=2)
    monkeypatch.setattr(cached, "put_one", stops)
    with pytest.raises(KeyboardInterrupt):
        predict(probed.run, "stopped", model, probed.pool(), settings)
    monkeypatch.setattr(cached, "put_one", put)
    output = predict(probed.run, "stopped", model, probed.pool(), settings)
    parts = output.parts(probed.store.fs)
    assert {part.name for part in done} <= {part.name for part in parts}
    assert [part.unit for part in parts] == list(range(5))


@pytest.mark.parametrize("kind", ["prototypes", "knn"])
def test_other_heads_teach_and_are_measured(
    probed: Probed, digits: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = probe_settings(digits, probed.uri, probed.network, head={"kind": kind})
    report: dict[str, Any] = self_train(settings)
    assert [row["name"] for row in report["generations"]] == ["teacher", "round 1"]
    assert min(row["test"]["value"] for row in report["generations"]) > 0.4
    assert ("timm: create_model('local-dir:" in capfd.readouterr().out) == (kind == "prototypes")


def test_the_temperature_is_fitted_on_cached_validation_images(
    probed: Probed, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = probe_tree(digits, probed.uri, probed.network)
    tree["predict"]["calibrate"] = True
    setup = RecipeContext(probed.run, parse(SelfTrainSettings, tree, "test"))
    monkeypatch.setattr(Manifest, "read", None)
    output = setup.predict("calibrated", probed.step("teacher fit"))
    scored = probed.store.step_json(output.step, "record.json")["settings"]
    assert scored["temperature"] != 1
    assert scored["from_features"] == 1


def test_a_head_of_neighbours_is_not_loaded_as_a_network(probed: Probed, digits: Path) -> None:
    self_train(probe_settings(digits, probed.uri, probed.network, head={"kind": "knn"}, generations=0))
    model = probed.step("teacher fit")
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file"):
        load(fetch_model(model, probed.store.fs))


@pytest.mark.parametrize(
    ("recipe", "changed", "told"),
    [
        ({"backbone": None}, {}, "set recipe.backbone to a model folder"),
        ({}, {"task": "multilabel"}, "set task=classify"),
        ({}, {"predict": {"views": "flip"}}, r"leave out predict\.views"),
        ({"head": {"kind": "svm"}}, {}, "kind"),
        ({"head": {"C": 0}}, {}, "greater than 0"),
    ],
)
def test_what_a_probe_cannot_do_is_refused(
    digits: Path, recipe: dict[str, Any], changed: dict[str, Any], told: str
) -> None:
    tree = probe_tree(digits, "store", Path("network")) | changed
    tree["recipe"] |= recipe
    with pytest.raises(SettingsError, match=told):
        parse(SelfTrainSettings, tree, "test")
