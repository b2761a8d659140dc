"""Training without a random crop, and evaluation, show the same pixels: of a disc of known diameter, and of timm's own transform."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from timm.data import create_transform

from engine.gather.training_set import TrainingSet, TrainingShard
from engine.images.crops import RandomCrop
from engine.images.decode import decode
from engine.models.build import build_model, train_frame
from engine.models.checkpoint import load, save
from engine.recipes.efficientnet import centre_share
from engine.settings.fit import NoiseSettings
from engine.settings.model import ModelSettings
from engine.tables import schema
from tests.fit.sets import HASH, NUM_CLASSES, open_stream, png

SIDE, DIAMETER = 112, 150
NETWORK = ModelSettings(model="resnet18", img_size=SIDE)


def disc() -> np.ndarray:
    """White on black, in the middle of a picture of 400 x 300, uint8 (300, 400, 3)."""
    y, x = np.mgrid[0:300, 0:400]
    inside = (y - 149.5) ** 2 + (x - 199.5) ** 2 < (DIAMETER / 2) ** 2
    return np.repeat(np.where(inside, 255, 0).astype(np.uint8)[:, :, None], 3, 2)


def diameter(image: np.ndarray) -> float:
    """Of the white disc in the first channel of an image (3, S, S), pixels."""
    return float(2 * np.sqrt((image[0] / 255.0).sum() / np.pi))


def streamed(folder: Path, network: ModelSettings, *crops: RandomCrop) -> np.ndarray:
    """The picture as a fit of `network` draws it, uint8 (3, S, S)."""
    columns = {"shard": [0], "row": [0], "key": ["disc"], "image": [png(disc())]}
    columns |= {"classes": [[0]], "weights": [[1.0]], "count": [1]}
    path = folder / "part-0.parquet"
    pq.write_table(pa.table(columns, schema=schema.training(NUM_CLASSES, HASH)), path)
    found = TrainingSet(str(folder), (TrainingShard(path.name, 1, 1, path.stat().st_size),), NUM_CLASSES, HASH)
    stream = open_stream(
        "labelled", found, frame=train_frame(network), batch_size=1, seed=0, cache_bytes=0, crops=crops
    )
    batch = stream.batch(0)
    return (batch.crops[-1] if crops else batch.images)[0].numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save(folder, build_model(NETWORK, 3), NETWORK, ["a", "b", "c"])
    return folder


def test_a_fit_without_crop_sees_what_is_evaluated(folder: Path, tmp_path: Path) -> None:
    """Pixel for pixel, also where another view of the stream crops at random. Objects were 12.3 % larger at test."""
    evaluated = decode(png(disc()), load(folder).frame).numpy()
    crop_pct = load(folder).frame.crop_pct
    assert crop_pct < 1, "otherwise nothing is shown"
    assert diameter(evaluated) == pytest.approx(DIAMETER * SIDE / crop_pct / 300, rel=0.01)
    np.testing.assert_array_equal(streamed(tmp_path, NETWORK), evaluated)
    frame = train_frame(NETWORK)
    both = RandomCrop.of(NoiseSettings(scale=(0.3, 1)), frame), RandomCrop.of(NoiseSettings(), frame, 1)
    np.testing.assert_array_equal(streamed(tmp_path, NETWORK, *both), evaluated)


def test_the_frame_is_that_of_timm(folder: Path) -> None:
    described = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    transform = create_transform(
        SIDE, crop_pct=described["crop_pct"], interpolation=described["interpolation"], mean=(0, 0, 0), std=(1, 1, 1)
    )
    theirs = transform(Image.fromarray(disc())).numpy() * 255
    ours = decode(png(disc()), load(folder).frame).numpy()
    assert diameter(ours) == pytest.approx(diameter(theirs), rel=0.005)


def test_the_crop_is_a_setting_of_the_model(tmp_path: Path) -> None:
    """EfficientNet's programs crop S / (S + 32); the model folder carries it."""
    assert centre_share(600) == pytest.approx(0.9494, abs=1e-4)
    own = NETWORK.model_copy(update={"crop_pct": centre_share(SIDE)})
    save(tmp_path / "model", build_model(own, 2), own, ["a", "b"])
    assert load(tmp_path / "model").frame.crop_pct == pytest.approx(SIDE / (SIDE + 32))
    assert diameter(streamed(tmp_path, own)) == pytest.approx(DIAMETER * (SIDE + 32) / 300, rel=0.01)


def test_a_model_may_predict_at_another_size_than_it_learned(tmp_path: Path) -> None:
    larger = NETWORK.model_copy(update={"test_img_size": 160})
    save(tmp_path, build_model(larger, 2), larger, ["a", "b"])
    loaded = load(tmp_path)
    assert (loaded.img_size, loaded.settings.img_size, train_frame(larger).img_size) == (160, SIDE, SIDE)
    fixed = ModelSettings(model="vit_tiny_patch16_224", test_img_size=256)
    with pytest.raises(ValueError, match="built for one image size"):
        build_model(fixed, 2)
