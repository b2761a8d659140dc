"""Model folders: a saved model loads here and in timm, and a damaged folder raises."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from engine.models.build import build_model
from engine.models.checkpoint import class_names, initialise, load, save
from engine.settings.model import ModelSettings

NAMES = ["cat", "dog", "newt"]
KINDS = {
    "own": ModelSettings(model="resnet8_cifar", img_size=32, drop=0.2, drop_path=0.1, model_args={"width": 8}),
    "wide": ModelSettings(model="wrn_28_2", img_size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)),
    "stock": ModelSettings(model="test_resnet.r160_in1k", img_size=64),
    "fixed size": ModelSettings(model="test_vit", img_size=48, drop_path=0.1),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = KINDS["own"]
    save(tmp_path / "model", build_model(settings, 3), settings, NAMES, {"note": "x"})
    return tmp_path / "model"


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS.keys())
def test_a_saved_model_loads_here_and_in_timm(settings: ModelSettings, tmp_path: Path) -> None:
    model = build_model(settings, 3).eval()
    save(tmp_path, model, settings, NAMES)
    state = torch.random.get_rng_state()
    loaded = load(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    images = torch.randn(2, 3, settings.img_size, settings.img_size)
    with torch.inference_mode():
        expected = model(images)
        assert torch.equal(loaded.model(images), expected)
        theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        assert torch.equal(theirs(images), expected)
    assert (loaded.class_names, loaded.img_size) == (NAMES, settings.img_size)
    assert theirs.pretrained_cfg["label_names"] == NAMES
    assert loaded.mean == tuple(theirs.pretrained_cfg["mean"])
    if settings.mean:
        assert (loaded.mean, loaded.std) == (settings.mean, settings.std)
    assert loaded.settings.drop_path == settings.drop_path
    assert class_names(tmp_path) == NAMES


def test_a_state_dict_saves_the_same_bytes_as_its_model(tmp_path: Path) -> None:
    settings = KINDS["own"]
    model = build_model(settings, 3)
    save(tmp_path / "model", model, settings, NAMES)
    save(tmp_path / "weights", model.to(memory_format=torch.channels_last).state_dict(), settings, NAMES)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "model" / file).read_bytes() == (tmp_path / "weights" / file).read_bytes()


def test_a_folder_that_timm_saved_is_read(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3).eval()
    config = {
        "architecture": "test_resnet",
        "num_classes": 3,
        "label_names": NAMES,
        "model_args": {"num_classes": 3, "in_chans": 3, "global_pool": "avg"},
        "pretrained_cfg": timm.get_pretrained_cfg("test_resnet").to_dict(remove_source=True),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    loaded = load(tmp_path)
    assert loaded.img_size == 160
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded.model(images), model(images))


def test_the_engine_block_holds_provenance(folder: Path) -> None:
    block = json.loads((folder / "config.json").read_text())["engine"]
    assert block["note"] == "x"
    assert block["model_settings"]["drop"] == 0.2
    assert len(block["classes_hash"]) == 16


def test_missing_files_raise(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"elsewhere/config.json: no such file\. A model folder holds"):
        load(tmp_path / "elsewhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model.safetensors: no such file"):
        load(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -10])
def test_truncated_weights_raise(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model.safetensors: not a readable safetensors file.*[Cc]opy it again"):
        load(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a model description"),
        ('{"architecture": "resnet8_cifar"}', "not a model description"),
    ],
)
def test_damaged_configs_raise(folder: Path, damage: str, message: str) -> None:
    (folder / "config.json").write_text(damage)
    with pytest.raises(ValueError, match=rf"config.json: {message}"):
        load(folder)


def test_a_wrong_number_of_class_names_raises(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"label_names": ["cat"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="1 label_names for num_classes 3"):
        load(folder)


def test_weights_of_another_model_raise(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["head.fc.extra"] = weights.pop("head.fc.bias")
    weights["head.fc.weight"] = weights["head.fc.weight"][:2].clone()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"1 missing in the file \(head.fc.bias\), 1 not in this model .* of another shape"
    ):
        load(folder)


def test_initial_weights_skip_a_head_of_other_classes(folder: Path) -> None:
    settings = KINDS["own"]
    model = build_model(settings, 5)
    head = model.get_classifier().weight.clone()  # type: ignore[operator]
    report = initialise(model, folder)
    assert report.mismatched == ["head.fc.weight", "head.fc.bias"]
    assert not report.missing
    assert not report.unexpected
    assert torch.equal(model.get_classifier().weight, head)  # type: ignore[operator]
    source = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], source[name]) for name in report.matched)
    assert "tensors loaded, 2 of another shape" in str(report)


def test_initial_weights_of_another_architecture_raise(folder: Path) -> None:
    with pytest.raises(ValueError, match="does not fit this model"):
        initialise(build_model(KINDS["fixed size"], 3), folder)
