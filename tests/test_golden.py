"""A golden digest per verb: an output that changes for the same input, with or without a raised REVISION, fails here.

The dictionary is keyed by verb and revision. Where an output is meant to change, raise the verb's REVISION and enter the digest that the failure
prints under the new key. Scores and weights are compared as numbers, since the last bits of a float differ between processors.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch

from engine.dedup import hashing
from engine.embed import pipeline as embedding
from engine.embed.shard_embedder import FeatureAnswers, ShardEmbedder, features_of
from engine.fit import trainer as fitting
from engine.fit.loop import Hooks, train
from engine.fit.objective import Context, create_objective
from engine.gather import pipeline as gathering
from engine.gather.arrange import arrange
from engine.gather.grouping import group_shards
from engine.gather.picks import ChosenPicks
from engine.gather.pipeline import GatherJob, gather_group
from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Step, Store
from engine.images import collection as listing
from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.images.overlap import read_content_hashes
from engine.images.scope import Scope
from engine.images.sources import list_images
from engine.labels.classes import ClassList
from engine.metrics.calibration import expected_calibration_error
from engine.metrics.interval import wilson
from engine.metrics.paired import mcnemar
from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.predict import pipeline as predicting
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import ShardPredictor
from engine.probe import fit as heads
from engine.probe.choose import TrainingRows, choose_penalty, fit_chosen
from engine.probe.prototypes import prototypes
from engine.select import pipeline as selecting
from engine.select.histogram import Histogram
from engine.select.histogram_step import ScoreHistograms
from engine.select.rule import PassStatistics, make_rule
from engine.select.scores import classes_of, scores_of
from engine.select.select import Selector
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings
from engine.settings.select import SelectSettings
from engine.tables import schema
from tests.fit.sets import fit_settings, open_stream, write_set
from tests.images.making import folder, jpeg, tar
from tests.select.tables import manifest as class_list
from tests.select.tables import random_pool


def digest(value: Any) -> str:
    """16 hex digits of plain values: equal values give equal text."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def assert_golden(verb: str, revision: int, case: str, value: Any) -> None:
    found, wanted = digest(value), GOLDEN.get((verb, revision), {}).get(case)
    assert found == wanted, (
        f"{verb} (revision {revision}), {case}: its output changed; raise REVISION and enter {found!r}"
    )


def listed(listing: Any, where: Path) -> Manifest:
    return Manifest.save(listing, pafs.LocalFileSystem(), str(where))


def read_all(manifest: Manifest) -> list[tuple[Any, ...]]:
    """(shard, row, key, hash of the bytes, label) of every image."""
    return [
        (shard, row["row"], row["key"], hashlib.sha256(row["image"]).hexdigest(), row["label"])
        for shard in range(manifest.num_shards)
        for batch in manifest.read(shard)
        for row in batch.to_pylist()
    ]


def parquet_of(path: Path, images: int = 12) -> Path:
    names = [f"image-{n}" for n in range(images)]
    labels = [("cat", "dog", "owl")[n % 3] for n in range(images)]
    table = pa.table({"key": names, "image": [jpeg(n) for n in range(images)], "label": labels})
    pq.write_table(table, path, row_group_size=5)
    return path


@pytest.mark.parametrize("kind", ["folder", "parquet", "tar"])
def test_list(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        source = folder(tmp_path / "images", ["cat/a.jpg", "cat/b.jpg", "dog/c.jpg", "dog/d.jpg", "dog/e.jpg"])
    elif kind == "parquet":
        source = parquet_of(tmp_path / "images.parquet")
    else:
        source = tmp_path / "images.tar"
        tar(source, {name: data for n in range(4) for name, data in ((f"{n}.jpg", jpeg(n)), (f"{n}.txt", b"cat"))})
    manifest = listed(
        list_images(str(source), SourceSettings(rows_per_shard=4, shard_bytes=2000)), tmp_path / "listing"
    )
    shape = [(row["shard"], row["start"], row["rows"], row["bytes"]) for row in manifest.shards.to_pylist()]
    assert_golden(
        "list", listing.REVISION, kind, (shape, [(s, r, k, label) for s, r, k, _, label in read_all(manifest)])
    )


def test_hash(tmp_path: Path) -> None:
    manifest = listed(list_images(str(parquet_of(tmp_path / "images.parquet"))), tmp_path / "listing")
    found = read_content_hashes(manifest)
    assert found.keys == [f"image-{n}" for n in range(12)]
    # libjpeg builds may encode differently: the hash of known bytes is what is golden
    pq.write_table(pa.table({"image": [b"first", b"second"]}), tmp_path / "bytes.parquet")
    known = listed(list_images(str(tmp_path / "bytes.parquet")), tmp_path / "known")
    assert_golden("hash", hashing.REVISION, "known bytes", [one.hex() for one in read_content_hashes(known).hashes])


SELECTIONS: dict[str, dict[str, Any]] = {
    "threshold": {"threshold": 0.6},
    "best K": {"per_class": 9},
    "several classes": {"per_class": 9, "classes_per_image": 3, "targets": "hard"},
    "truncated": {"threshold": 0.4, "balance": "truncate"},
    "duplicated": {"threshold": 0.5, "per_class": 40, "balance": "duplicate", "targets": "hard"},
    "prior": {"per_class": 9, "prior": {f"class {c}": w for c, w in enumerate((3.0, 0.0, 1.0, 1.0, 1.0, 2.0))}},
    "published": {"threshold": 0.3, "per_class": 20, "balance": "published"},
    "quantile": {"cut": "quantile", "share": 0.2},
    "flexmatch": {"cut": "flexmatch", "threshold": 0.8},
    "freematch": {"cut": "freematch"},
    "adamatch": {"cut": "adamatch", "share": 0.9},
    "softmatch": {"cut": "softmatch"},
    "bounded": {"threshold": 0.9, "at_least": 0.3, "at_most": 0.5},
}


@pytest.mark.parametrize("case", SELECTIONS)
def test_select(case: str) -> None:
    settings = SelectSettings(**SELECTIONS[case])
    classes, pool = class_list(6), random_pool(400, 6, 3, seed=7)
    table = pool.table()
    seen = None
    if settings.needs_histogram:
        counted = ScoreHistograms("max_probability", Histogram(6), Histogram(6))
        counted.update(table)
        seen = PassStatistics(counted.best, counted.stored, np.linspace(0.5, 1, 50).astype(np.float32))
    selector = Selector(settings, classes, make_rule(settings, classes, seen))
    selector.update(table)
    chosen, _ = selector.finish()
    rows = [
        (
            *(r[name] for name in ("shard", "row", "class")),
            round(float(r["score"]), 3),
            *(r[name] for name in ("rank", "count", "classes")),
            tuple(round(w, 4) for w in r["weights"]),
        )
        for r in chosen.to_pylist()
    ]
    assert len(rows) > 10
    assert_golden("select", selecting.REVISION, case, rows)


def test_predict(tmp_path: Path) -> None:
    manifest = listed(
        list_images(str(parquet_of(tmp_path / "images.parquet")), SourceSettings(rows_per_shard=12)),
        tmp_path / "listing",
    )
    settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
    torch.manual_seed(1)
    save(tmp_path / "model", build_model(settings, 3), settings, ["cat", "dog", "owl"])
    chosen = PredictSettings(top_p=3, batch_size=5, backend="eager")
    made = ShardPredictor(Scope(Collection("pool", manifest)), Predictor(tmp_path / "model", chosen))(0)
    table = made.predictions
    assert made.quarantine.num_rows == 0
    assert_golden("predict", predicting.REVISION, "classes", classes_of(table).tolist())
    expected = np.array(SCORES[predicting.REVISION], np.float32)
    np.testing.assert_allclose(scores_of(table).astype(np.float32)[:, 0], expected, atol=4e-3)


def test_embed(tmp_path: Path) -> None:
    manifest = listed(
        list_images(str(parquet_of(tmp_path / "images.parquet")), SourceSettings(rows_per_shard=12)),
        tmp_path / "listing",
    )
    settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
    torch.manual_seed(1)
    save(tmp_path / "model", build_model(settings, 0), settings, [])
    predictor = Predictor(tmp_path / "model", PredictSettings(batch_size=5, backend="eager"), answers=FeatureAnswers())
    features = features_of(ShardEmbedder(Scope(Collection("pool", manifest)), predictor)(0).predictions)
    assert features.shape == (12, 64)
    found = [*features.astype(np.float64).mean(axis=1)[:4], float(features.astype(np.float64).std())]
    np.testing.assert_allclose(
        found, FEATURES[embedding.REVISION], rtol=5e-3, err_msg="features changed; raise REVISION"
    )


def test_probe() -> None:
    rng = np.random.default_rng(5)
    z = torch.tensor(rng.normal(size=(60, 8)) / 3, dtype=torch.float32)
    targets = torch.nn.functional.one_hot(torch.arange(60) % 3, 3).float()
    rows = TrainingRows(z, targets, torch.linspace(0.5, 2, 60), 60)
    chosen = choose_penalty(rows, None, folds=4)
    fitted = fit_chosen(rows, chosen)
    weight, _ = prototypes(z, targets, rows.weights, 0.1)
    found = [chosen.C, float(fitted.weight.norm()), fitted.loss, float(weight[:, 0].abs().sum())]
    np.testing.assert_allclose(found, HEADS[heads.REVISION], rtol=2e-3, err_msg="a head changed; raise REVISION")


def test_gather(tmp_path: Path) -> None:
    manifest = listed(
        list_images(str(parquet_of(tmp_path / "images.parquet")), SourceSettings(rows_per_shard=4)),
        tmp_path / "listing",
    )
    classes = ClassList(("cat", "dog", "owl"))
    lists = pa.list_(schema.class_type(3))
    rows = [(2, 1, [0], [1.0], 1), (0, 3, [1, 2], [0.75, 0.2], 2), (1, 0, [2], [1.0], 1), (0, 0, [1], [1.0], 3)]
    picks = pa.table(
        [
            pa.array([r[0] for r in rows], pa.int32()),
            pa.array([r[1] for r in rows], pa.int32()),
            pa.array([r[2] for r in rows], lists),
            pa.array([r[3] for r in rows], pa.list_(pa.float32())),
            pa.array([r[4] for r in rows], pa.int32()),
        ],
        names=["shard", "row", "classes", "weights", "count"],
    )
    step = Step(Store(str(tmp_path / "store")).open(), StepRecord("gather", 0))
    chosen = step.store.step(StepRecord("select", 0))
    output = chosen.commit([chosen.put_part(0, picks)], {}, 0.0)
    collection = Collection("pool", manifest)
    run = Run(step.store, "run", ClusterSettings())
    picked = ChosenPicks(arrange(run, "order", output, collection))
    job = GatherJob(step, Scope(collection), classes, picked, seed=3)
    out = []
    for group in group_shards(*picked.counts(), 2, seed=3):
        part = gather_group(group, job)
        table = pq.read_table(f"{step.folder}/parts/{part.name}")
        out += [
            (group.unit, r["shard"], r["row"], r["key"], r["classes"], [round(w, 4) for w in r["weights"]], r["count"])
            for r in table.to_pylist()
        ]
    assert len(out) == 4
    assert_golden("gather", gathering.REVISION, "picks", out)


def test_fit_of_five_steps(tmp_path: Path) -> None:
    settings = fit_settings(
        steps=5, batch={"labelled": 8}, noise={"labelled": {"pad": 1, "aa_num_ops": 1}}, amp=False, channels_last=False
    )
    model = ModelSettings(model="resnet8_cifar", img_size=8, model_args={"width": 4})
    torch.manual_seed(0)
    objective = create_objective(Context(torch.device("cpu"), settings, model, tuple("abcd")))
    stream = open_stream(
        "labelled", write_set(tmp_path / "set"), batch_size=8, seed=settings.seed, size=8, cache_bytes=2**20
    )
    logs: list[dict[str, Any]] = []
    train(objective, {"labelled": stream}, settings, Hooks(lambda *_: None, logs.append))
    weights = [weight.detach().double() for weight in objective.export().parameters()]
    found = [logs[-1]["loss"], *(float(w.abs().mean()) for w in weights[:3]), float(weights[-2].norm())]
    np.testing.assert_allclose(
        found, WEIGHTS[fitting.REVISION], rtol=2e-3, err_msg="the fit's outcome changed; raise REVISION"
    )


def test_measures() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 200)
    first, second = np.where(rng.random(200) < 0.7, truth, 0), np.where(rng.random(200) < 0.8, truth, 1)
    confidence = rng.random(200)
    test = mcnemar(first == truth, second == truth)
    values = [*wilson(int((first == truth).sum()), 200), test.difference.value, test.p_value]
    values.append(expected_calibration_error(confidence, first == truth))
    np.testing.assert_allclose(values, MEASURES, rtol=1e-5)


GOLDEN: dict[tuple[str, int], dict[str, str]] = {
    ("list", 1): {
        "folder": "44ea469011c57b3e",
        "parquet": "b97a9c6ee3514f8a",
        "tar": "ac46cdc4cab8ba63",
    },
    ("hash", 1): {
        "known bytes": "0449e883ca11684e",
    },
    ("select", 2): {
        "threshold": "180595e0dc3ef016",
        "best K": "f7c302e688fac472",
        "several classes": "2e3994855801b75c",
        "truncated": "d67fb13247b3417e",
        "duplicated": "162f05bc7665d5bc",
        "prior": "929090f9aeeacccf",
        "published": "e94da1070b3e6f04",
        "quantile": "3b6a43d3d5a7330b",
        "flexmatch": "a50634c3c305dd4d",
        "freematch": "e37c5ba0b36a612d",
        "adamatch": "55ebbb292c9c0f99",
        "softmatch": "5c296aa3c3a867d9",
        "bounded": "1c257e20e92c2067",
    },
    ("predict", 2): {
        "classes": "197b6f6d09984f70",
    },
    ("gather", 2): {
        "picks": "ced22607188a88e3",
    },
}
SCORES = {
    2: [
        -0.634277,
        -0.631348,
        -0.624512,
        -0.624512,
        -0.630859,
        -0.63623,
        -0.625977,
        -0.628906,
        -0.633789,
        -0.633789,
        -0.62207,
        -0.629395,
    ]
}
"""Log-odds of the best class of each image, by the revision of predict."""
FEATURES = {1: [0.029178, 0.02273, 0.025663, 0.024962, 0.018614]}
"""Mean features of four images and the deviation of all, by the revision of embed."""
HEADS = {1: [0.1, 0.433717, 1.069805, 5.342384]}
"""Chosen C, norm and loss of a probe, and a sum of prototypes, by the revision of probe."""
WEIGHTS = {3: [1.61826, 0.113763, 1.00005, 0.0249489, 1.08352]}
"""Loss, mean |weight| of three tensors and the norm of the classifier after five steps, by the revision of fit."""
MEASURES = [0.722977, 0.836281, 0.085, 0.0327658, 0.342188]
"""Wilson's interval, paired difference, McNemar's p value, calibration error."""
