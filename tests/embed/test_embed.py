"""Features are what the network gives by hand, each image once, whatever is killed; a cache of another network is never used."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.embed.backbone import make_backbone
from engine.embed.pipeline import embed
from engine.embed.reading import check_same_network, read_all, read_rows
from engine.embed.shard_embedder import FeatureAnswers, features_of
from engine.embed.statistics import find_scaling, read_scaling
from engine.ground.run import Run
from engine.ground.steps import Output, Store, read_tables
from engine.images.collection import open_collection
from engine.images.decode import content_hash, decode
from engine.images.scope import Scope
from engine.models.build import build_model
from engine.models.checkpoint import load
from engine.models.imported import find_model
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.embed import EmbedSettings
from engine.settings.model import ModelSettings
from tests import driver
from tests.images.making import jpeg
from tests.probe.small import NETWORK, put_network

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

EAGER = EmbedSettings(backend="eager", batch_size=4)


def write_pool(path: Path, images: int = 10) -> Path:
    """Images of which the fourth cannot be decoded."""
    encoded = [jpeg(n) for n in range(images)]
    encoded[3] = b"no image"
    pq.write_table(pa.table({"key": [f"image-{n}" for n in range(images)], "image": encoded}), path)
    return path


def new_run(folder: Path) -> Run:
    return Run(Store(str(folder / "store")), "run", ClusterSettings())


def scope_of(run: Run, path: Path) -> Scope:
    collection = open_collection(run, "pool", str(path), SourceSettings(rows_per_shard=4))
    return Scope(collection, max_rejected_percent=50)


def embedded(run: Run, network: Path, pool: Path) -> Output:
    backbone = make_backbone(run, NETWORK, find_model(run, str(network), as_init=True))
    return embed(run, backbone, scope_of(run, pool), EAGER)


def test_features_are_those_of_the_network_by_hand(tmp_path: Path) -> None:
    run, pool = new_run(tmp_path), write_pool(tmp_path / "pool.parquet")
    network = put_network(tmp_path / "network")
    output = embedded(run, network, pool)
    assert output.summary["images"] == 9
    assert output.summary["rejected"] == 1
    where, features = read_all(output, run.store)
    assert [(r["shard"], r["row"]) for r in where.to_pylist()] == [(n // 4, n % 4) for n in range(10) if n != 3]
    loaded = load(network)
    model: Any = loaded.model
    images = pq.read_table(pool)["image"].to_pylist()
    kept = [n for n in range(10) if n != 3]
    pixels = torch.stack([decode(pa.py_buffer(images[n]), loaded.frame) for n in kept]) / 255
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (loaded.mean, loaded.std))
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features((pixels - mean) / std), pre_logits=True)
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, wanted.numpy(), rtol=2e-3, atol=1e-4)
    contents = [value for _, table in read_tables(output, run.store.fs) for value in table["content"].to_pylist()]
    assert contents == [content_hash(images[n]) for n in kept]
    picked = pa.table({"shard": pa.array([2, 0, 1], pa.int32()), "row": pa.array([1, 2, 0], pa.int32())})
    np.testing.assert_array_equal(read_rows(output, run.store, picked), features[[8, 2, 3]])
    with pytest.raises(ValueError, match="no features of 1 of 2 images"):
        read_rows(output, run.store, pa.table({"shard": [0, 0], "row": [2, 3]}))


def test_features_of_another_network_are_never_used(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, pool = new_run(tmp_path), write_pool(tmp_path / "pool.parquet")
    network = put_network(tmp_path / "network")
    first = embedded(run, network, pool)
    capfd.readouterr()
    assert embedded(run, network, pool) == first
    assert f"reused ({first.step})" in capfd.readouterr().out
    weights = load_file(network / "model.safetensors")
    name = next(name for name in weights if name.endswith("0.0.weight"))
    save_file({**weights, name: weights[name] * 1.01}, network / "model.safetensors")
    other = embedded(run, network, pool)
    assert other.step != first.step
    with pytest.raises(ValueError, match="different networks"):
        check_same_network([first, other])


def test_the_scaling_is_that_of_numpy(tmp_path: Path) -> None:
    run, pool = new_run(tmp_path), write_pool(tmp_path / "pool.parquet")
    output = embedded(run, put_network(tmp_path / "network"), pool)
    _, features = read_all(output, run.store)
    scaling = read_scaling(find_scaling(run, "scale", output), run.store)
    values = features.astype(np.float64)
    moving = values.std(axis=0) > 0
    np.testing.assert_allclose(scaling.mean, values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        scaling.scale[moving], values.std(axis=0)[moving] * np.sqrt(moving.sum()), rtol=1e-3, atol=1e-6
    )
    z = scaling(features)
    assert np.mean(np.square(z).sum(axis=1)) == pytest.approx(1, abs=1e-2)
    assert not z[:, ~moving].any()


@pytest.mark.slow
def test_a_killed_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    pool, network = write_pool(tmp_path / "pool.parquet", images=300), put_network(tmp_path / "network")
    arguments = [f"model={network}", f"images.uri={pool}", "images.rows_per_shard=2", "embed.backend=eager"]
    config = tmp_path / "embed.yaml"
    config.write_text(
        f"run: run\nstore: {tmp_path / 'store'}\nmodel: x\nimages: {{uri: x, max_rejected_percent: 50}}\n"
    )
    command = [sys.executable, "-m", "jobs.embed", str(config), *arguments]
    steps = tmp_path / "store" / "steps"

    def parts() -> set[str]:
        return {path.name for path in steps.glob("embed-*/parts/*.parquet")}

    log, deadline = tmp_path / "log", time.monotonic() + 300
    with driver.started(command, log) as process:
        while len(parts()) < 3:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = parts()
    assert not list(steps.glob("embed-*/step.json")), "the pass was already over"
    run = Run(Store(str(tmp_path / "store")), "run", ClusterSettings())
    collection = open_collection(run, "images", str(pool), SourceSettings(rows_per_shard=2))
    backbone = make_backbone(run, load(network).settings, find_model(run, str(network), as_init=True))
    scope = Scope(collection, max_rejected_percent=50)
    output = embed(run, backbone, scope, EmbedSettings(backend="eager"))
    assert [one.name for one in steps.glob("embed-*")] == [output.step]
    assert before <= parts(), "finished parts were thrown away"
    committed = output.parts(run.store.fs)
    assert [part.unit for part in committed] == list(range(150))
    undisturbed = new_run(tmp_path / "other")
    again = make_backbone(undisturbed, load(network).settings, find_model(undisturbed, str(network), as_init=True))
    whole = embed(undisturbed, again, scope, EmbedSettings(backend="eager"))
    assert whole.digest == output.digest


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (NETWORK, "random weights mean nothing"),
        (ModelSettings(model="resnet18", decoder="unet"), "no features of a whole image"),
    ],
)
def test_a_network_without_features_is_refused(tmp_path: Path, settings: ModelSettings, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make_backbone(new_run(tmp_path), settings, None)


def test_weights_that_cannot_be_fetched_are_asked_for_as_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr("timm.create_model", offline)
    wanted = ModelSettings(model="resnet18", img_size=32, pretrained=True)
    with pytest.raises(ValueError, match=r"no route to host\)\. Without a network, put its config\.json"):
        make_backbone(new_run(tmp_path), wanted, None)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    run, network = new_run(tmp_path), put_network(tmp_path / "network")
    with pytest.raises(ValueError, match="does not fit this model"):
        make_backbone(run, ModelSettings(model="resnet18", img_size=32), find_model(run, str(network), as_init=True))


def test_features_that_float16_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="features of 1 images are not finite in float16"):
        FeatureAnswers().encode((np.array([[1.0, 2.0], [3.0, 1e6]], np.float32),))


def test_timm_networks_give_what_their_classifier_sees() -> None:
    """Without a classifier the outputs of a network are what `forward_head(pre_logits=True)` gives."""
    for name, size in (("resnet18", 32), ("vit_tiny_patch16_224", 224), ("mobilenetv3_small_050", 64)):
        settings = ModelSettings(model=name, img_size=size)
        torch.manual_seed(0)
        whole: Any = build_model(settings, 7).eval()
        bare = build_model(settings, 0).eval()
        bare.load_state_dict(whole.state_dict(), strict=False)
        images = torch.randn(2, 3, size, size)
        with torch.inference_mode():
            seen = whole.forward_head(whole.forward_features(images), pre_logits=True)
            torch.testing.assert_close(bare(images), seen)
            torch.testing.assert_close(whole.get_classifier()(seen), whole(images))


def test_views_of_memory_are_features() -> None:
    table = pa.table({"features": pa.array([np.arange(3, dtype="<f2").tobytes()] * 2, pa.binary(6))})
    np.testing.assert_array_equal(features_of(table), [[0, 1, 2]] * 2)
