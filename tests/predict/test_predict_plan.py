"""The start-up measurement of a labelling step, in this process."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from engine.ground.record import StepRecord
from engine.ground.run import Run
from engine.ground.steps import Output, Store
from engine.images.collection import Collection, open_collection
from engine.images.decode import Frame, RejectedImageError, decode, decode_reduced
from engine.images.scope import Scope
from engine.models.checkpoint import load
from engine.models.imported import find_model
from engine.predict.int8 import load_quantised
from engine.predict.job import PredictJob
from engine.predict.predict_plan import PlannedNetwork, decoding_agreement, make_plan
from engine.predict.predictor import Predictor
from engine.settings.block import identity
from engine.settings.cluster import ClusterSettings
from engine.settings.data import SourceSettings
from engine.settings.predict import PredictSettings
from tests.predict.test_shard_predictor import teacher as teacher  # the fixture


def jpeg(width: int, height: int, seed: int = 0, **options: object) -> bytes:
    """A smooth picture, as photographs are at the scale of a pixel."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_scaled_decoding_is_close_and_never_smaller_than_needed() -> None:
    data = jpeg(500, 375)
    small = decode_reduced(data, 64)
    assert small is not None
    assert 64 <= min(small.shape[:2]) < 128
    full, scaled = decode(data, Frame(64)).float(), decode(data, Frame(64), scaled=True).float()
    assert scaled.shape == full.shape
    assert 0 < (full - scaled).abs().mean() < 3


def test_scaled_decoding_turns_by_exif_and_leaves_the_rest_to_the_full_decoder() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = jpeg(500, 375, exif=exif)
    assert (decode(data, Frame(64)).float() - decode(data, Frame(64), scaled=True).float()).abs().mean() < 3
    assert decode_reduced(jpeg(100, 90), 64) is None, "there was nothing to gain"
    assert decode_reduced(b"\x89PNG whatever", 64) is None
    grey = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("L").save(grey, "JPEG")
    assert decode(grey.getvalue(), Frame(64), scaled=True).shape == (3, 64, 64)
    for cut in (data[:30], data[: len(data) // 2]):
        with pytest.raises(RejectedImageError, match="truncated"):
            decode(cut, Frame(64), scaled=True)


class Begun:
    """A run with a model and a pool of JPEGs."""

    def __init__(self, folder: Path, teacher: Path, images: list[bytes]) -> None:
        pq.write_table(pa.table({"image": images}), folder / "pool.parquet")
        self.run = Run(Store(str(folder / "store")), "run", ClusterSettings())
        self.model: Output = find_model(self.run, str(teacher))
        self.pool: Collection = open_collection(
            self.run, "pool", str(folder / "pool.parquet"), SourceSettings(rows_per_shard=8)
        )

    def start(self, **settings: object) -> dict[str, object]:
        step = self.run.store.step(StepRecord("predict", 0))
        chosen = PredictSettings.model_validate({"top_p": 3, **settings})
        return make_plan(PredictJob(step, Scope(self.pool), self.model, chosen), 1)


def test_the_plan_names_backend_batch_and_collection(teacher: Path, tmp_path: Path) -> None:
    begun = Begun(tmp_path, teacher, [jpeg(80, 60, seed) for seed in range(20)])
    plan = begun.start(decode="scaled")
    predict = plan["predict"]
    assert isinstance(predict, dict)
    assert predict["batch_size"] == 8, "a batch larger than a shard would be padding"
    assert predict["backend"] in ("eager", "channels_last", "frozen", "openvino")
    assert plan["manifest"] == begun.pool.manifest.folder.rsplit("/", 1)[-1]
    assert (plan["shards"], plan["images"]) == (3, 20)
    scaled = plan["scaled"]
    assert isinstance(scaled, dict)
    assert scaled["images"] == 20, "compared on a batch where there were more images"
    assert 0 <= scaled["top1"] <= 1
    said = plan["said"]
    assert isinstance(said, list)
    assert said[0].startswith(f"backend {predict['backend']}: ")
    assert "scaled decoding" in said[1]


def test_nvjpeg_needs_a_gpu_and_is_compared_with_full_decoding(teacher: Path, tmp_path: Path) -> None:
    images = [jpeg(80, 60, seed) for seed in range(20)]
    if not torch.cuda.is_available():
        with pytest.raises(
            ValueError, match=r"decode=nvjpeg needs a GPU, and this worker has none: use predict\.decode=full"
        ):
            Begun(tmp_path, teacher, images).start(decode="nvjpeg")
    encoded = [pa.py_buffer(image) for image in [*images, b"torn"]]
    # torchvision decodes on the CPU here
    agreed = decoding_agreement("nvjpeg", encoded, PlannedNetwork(load(teacher), "eager", 8, "cpu"))
    assert agreed["images"] == 20
    assert agreed["pixels"] < 0.5
    assert agreed["logits"] < 0.05
    assert agreed["rate"] > 0 < agreed["full"]


def test_int8_is_quantised_once_and_kept_in_the_step(teacher: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    begun = Begun(tmp_path, teacher, [jpeg(80, 60, seed) for seed in range(20)])
    plan = begun.start(backend="int8")
    step = begun.run.store.step(StepRecord("predict", 0))
    backend = plan["backend"]
    assert isinstance(backend, dict)
    assert backend["name"] == "int8"
    assert backend["agreement"]["int8"]["images"] == 20
    assert 0 < backend["agreement"]["int8"]["logits"] < 0.1
    settings = PredictSettings(top_p=3, batch_size=8, backend="int8")
    images = torch.stack([decode(jpeg(80, 60, seed), Frame(16)) for seed in range(20)])
    first, again = (Predictor(teacher, settings, quantised=load_quantised(step))(images) for _ in range(2))
    exact = Predictor(teacher, PredictSettings(top_p=3, batch_size=8, backend="eager"))(images)
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert (first[0][:, 0] == exact[0][:, 0]).mean() > 0.8
    assert not np.array_equal(first[1], exact[1]), "nothing was rounded"


def test_int8_without_its_packages_says_what_to_install(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    begun = Begun(tmp_path, teacher, [jpeg(80, 60, seed) for seed in range(4)])
    with pytest.raises(ValueError, match=r"backend=int8 cannot be used here: openvino is not installed: pip install"):
        begun.start(backend="int8")


def test_int8_outside_a_labelling_step_is_refused(teacher: Path) -> None:
    settings = PredictSettings(backend="int8")
    with pytest.raises(ValueError, match="calibrated at the start of a labelling step"):
        Predictor(teacher, settings)
    assert settings.for_evaluation().backend == "auto", "a model's accuracy is measured exactly"
    assert identity(settings) != identity(settings.for_evaluation())


def test_a_model_folder_is_taken_into_a_store_on_s3(teacher: Path, s3: str) -> None:
    run = Run(Store(s3.format("imported")), "run", ClusterSettings())
    model = find_model(run, str(teacher))
    assert find_model(run, model.step).digest == model.digest


def test_a_pool_without_a_usable_image_is_still_planned(teacher: Path, tmp_path: Path) -> None:
    begun = Begun(tmp_path, teacher, [b"torn"] * 3)
    assert begun.start()["predict"] == {"batch_size": 3, "backend": "channels_last"}
    assert begun.start(backend="bf16")["predict"] == {"batch_size": 3, "backend": "bf16"}
