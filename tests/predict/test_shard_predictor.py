"""One shard, start to end, without Ray: the same part with and without look-ahead, in any backend, with broken images in it."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch

from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.images.overlap import build_exclusion_set, read_content_hashes
from engine.images.scope import Scope
from engine.images.sources import list_images
from engine.images.subset import Subset
from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.predict.bottleneck import bottleneck
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import PredictedShard, ShardPredictor
from engine.select.scores import classes_of, scores_of
from engine.settings.data import SourceSettings
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings
from tests.images.making import encode, jpeg, picture


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
    torch.manual_seed(1)
    save(folder, build_model(settings, 10), settings, [str(i) for i in range(10)])
    return folder


@pytest.fixture(scope="module")
def manifest(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two shards of 30 images; some of the first are broken."""
    folder = tmp_path_factory.mktemp("pool")
    table = pq.read_table(digits / "pool.parquet").slice(0, 60)
    images = table["image"].to_pylist()
    images[3], images[17], images[20] = b"", b"\xff\xd8\xff\xe0 torn", None
    table = table.set_column(table.schema.get_field_index("image"), "image", pa.array(images, pa.binary()))
    pq.write_table(table, folder / "pool.parquet")
    listing = list_images(str(folder / "pool.parquet"), SourceSettings(rows_per_shard=30))
    return Manifest.save(listing, pafs.LocalFileSystem(), str(folder / "list"))


def scope(manifest: Manifest, **chosen: Any) -> Scope:
    return Scope(Collection("pool", manifest), **chosen)


def label(manifest: Manifest, teacher: Path, threads: int = 0, **settings: object) -> PredictedShard:
    chosen = PredictSettings(top_p=3, batch_size=8, **settings)
    return ShardPredictor(scope(manifest), Predictor(teacher, chosen), threads)(0)


def test_look_ahead_gives_the_same_part(manifest: Manifest, teacher: Path) -> None:
    plain, ahead = label(manifest, teacher), label(manifest, teacher, threads=3)
    assert plain.predictions.equals(ahead.predictions)
    assert plain.quarantine.equals(ahead.quarantine)
    assert ahead.predictions["row"].to_pylist() == [row for row in range(30) if row not in (3, 17, 20)]
    assert plain.seconds.wait == 0 < ahead.seconds.wait


def test_only_the_images_asked_for_are_labelled_and_as_they_are_among_all(manifest: Manifest, teacher: Path) -> None:
    wanted = [5, 17, 29]  # 17 is broken
    chosen = scope(manifest, chosen=Subset.of(np.zeros(3, np.int64), np.array(wanted)))
    labeller = ShardPredictor(chosen, Predictor(teacher, PredictSettings(top_p=3, batch_size=8)))
    some, everything = labeller(0), label(manifest, teacher)
    assert some.predictions["row"].to_pylist() == [5, 29]
    assert some.quarantine["row"].to_pylist() == [17]
    whole = everything.predictions.filter(
        pa.compute.is_in(everything.predictions["row"], pa.array([5, 29], pa.int32()))
    )
    assert classes_of(some.predictions).tolist() == classes_of(whole).tolist()
    np.testing.assert_allclose(scores_of(some.predictions), scores_of(whole), atol=2e-2)
    assert labeller(1).predictions.num_rows == 0


def test_reasons_are_few_words_and_the_quarantine_has_the_details(manifest: Manifest, teacher: Path) -> None:
    labelled = label(manifest, teacher)
    assert labelled.reasons == {"empty": 1, "truncated": 1, "missing": 1}
    assert labelled.rejected == 3
    assert labelled.quarantine["row"].to_pylist() == [3, 17, 20]


def test_a_backend_of_fixed_shape_labels_the_short_last_batch(manifest: Manifest, teacher: Path) -> None:
    eager, frozen = (label(manifest, teacher, backend=name) for name in ("eager", "frozen"))
    assert frozen.predictions.num_rows == eager.predictions.num_rows == 27
    assert np.array_equal(classes_of(frozen.predictions)[:, 0], classes_of(eager.predictions)[:, 0])
    np.testing.assert_allclose(scores_of(frozen.predictions), scores_of(eager.predictions), rtol=2e-3, atol=2e-3)


def test_flip_is_the_same_in_any_backend(manifest: Manifest, teacher: Path) -> None:
    eager, folded = (label(manifest, teacher, backend=name, views="flip") for name in ("eager", "channels_last"))
    np.testing.assert_allclose(scores_of(folded.predictions), scores_of(eager.predictions), rtol=2e-3, atol=2e-3)


def test_jpegs_decoded_by_the_batch_are_labelled_like_others(teacher: Path, tmp_path: Path) -> None:
    """torchvision decodes on the CPU here, as it would on a GPU: what it takes, what it leaves, what is broken and what is held out."""
    images = [jpeg(seed, width=40, height=30) for seed in range(12)]
    images[2], images[5], images[9] = encode(picture(2, 40, 30)), images[5][:-9], b"torn"
    pq.write_table(pa.table({"image": images}), tmp_path / "pool.parquet")
    pq.write_table(pa.table({"image": images[7:8]}), tmp_path / "test.parquet")
    lists = [
        list_images(str(tmp_path / f"{name}.parquet"), SourceSettings(rows_per_shard=30)) for name in ("pool", "test")
    ]
    pool, test = (Manifest.save(one, pafs.LocalFileSystem(), str(tmp_path / str(at))) for at, one in enumerate(lists))
    held = build_exclusion_set({"test": read_content_hashes(test)})
    full, batched = (
        ShardPredictor(
            scope(pool, exclusions=held),
            Predictor(teacher, PredictSettings(top_p=3, batch_size=8, decode=how)),
            threads,
        )(0)
        for how, threads in (("full", 0), ("nvjpeg", 2))
    )
    assert batched.predictions["row"].to_pylist() == [0, 1, 2, 3, 4, 6, 8, 10, 11]
    assert batched.predictions["row"].equals(full.predictions["row"])
    assert batched.quarantine.equals(full.quarantine)
    assert batched.excluded == 1
    np.testing.assert_allclose(scores_of(batched.predictions), scores_of(full.predictions), atol=0.05)


def test_a_reader_that_fails_ends_the_shard_with_its_error(
    manifest: Manifest, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(*_: object, **__: object) -> object:
        yield from ()
        raise ValueError("pool.parquet: cut short")

    monkeypatch.setattr(Manifest, "read", torn)
    for threads in (0, 2):
        with pytest.raises(ValueError, match="cut short"):
            label(manifest, teacher, threads=threads)


def test_the_stage_that_takes_longest_bounds_the_step() -> None:
    told = bottleneck({"read": 1, "decode": 6, "infer": 2, "write": 1})
    assert told is not None
    assert told.stage == "decode"
    assert told.shares == {"read": 0.1, "decode": 0.6, "infer": 0.2, "write": 0.1}
    assert told.busy is None
    ahead = bottleneck({"decode": 1, "infer": 9, "wait": 1})
    assert ahead is not None
    assert ahead.busy == pytest.approx(0.9)
    assert bottleneck({}) is None
