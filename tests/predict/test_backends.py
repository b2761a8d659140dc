"""Every backend against eager on real images, and the choice among them."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from engine.images.decode import Frame, decode
from engine.models.build import build_model as build_model
from engine.predict import backends
from engine.predict.backend_choice import (
    TOLERANCE,
    Agreement,
    agreement,
    allowed_backends,
    choose_backend,
    pick,
)
from engine.predict.backends import BACKENDS, Norm, UnavailableError, build, check_openvino
from engine.settings.block import identity
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings

CPU = torch.device("cpu")
SIZE, BATCH = 16, 8


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A small network whose batch norms have something to fold."""
    torch.manual_seed(0)
    network = build_model(ModelSettings(model="resnet8_cifar", img_size=SIZE, model_args={"width": 8}), 10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return network.eval()


@pytest.fixture(scope="module")
def pixels(digits: Path) -> torch.Tensor:
    images = pq.read_table(digits / "pool.parquet")["image"][: 2 * BATCH].to_pylist()
    return torch.stack([decode(image, Frame(SIZE)) for image in images]).float() / 128 - 1


@pytest.mark.parametrize("name", ["channels_last", "frozen", "openvino", "bf16", "openvino_bf16", "fp16"])
def test_backend_gives_eagers_answers(name: str, model: nn.Module, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        expected = build("eager", model, (BATCH, 3, SIZE, SIZE), CPU)(pixels[:BATCH])
        try:
            logits = build(name, model, (BATCH, 3, SIZE, SIZE), CPU)(pixels[:BATCH])
        except UnavailableError as error:
            pytest.skip(str(error))
    assert agreement(logits, expected).logits <= (0.05 if BACKENDS[name].changes_answers else TOLERANCE)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", ["eager", "channels_last", "frozen", "openvino", "bf16", "openvino_bf16"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bytes_are_normalised_on_the_way(name: str, layout: torch.memory_format, model: nn.Module) -> None:
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8).contiguous(memory_format=layout)
    norm, shape = Norm((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)), (BATCH, 3, SIZE, SIZE)
    by_hand = torch.stack([(images[:, c].float() / 255 - norm.mean[c]) / norm.std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(norm(images), by_hand)
    with torch.inference_mode():
        try:
            found = build(name, model, shape, CPU, norm=norm)(images)
        except UnavailableError as error:
            pytest.skip(str(error))
        expected = build("eager", model, shape, CPU)(by_hand)
    assert agreement(found, expected).logits <= (0.05 if BACKENDS[name].changes_answers else TOLERANCE)


def test_openvino_reports_nothing_over_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its telemetry forks a process a message, and would come from every worker of a cluster."""
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with suppress(UnavailableError):
        check_openvino(CPU)
    assert sys.modules["openvino_telemetry"] is None


def test_openvino_pins_no_thread_to_a_core(model: nn.Module) -> None:
    """Every worker of a machine would pin its own to the same ones."""
    try:
        forward = build("openvino", model, (BATCH, 3, SIZE, SIZE), CPU)
    except UnavailableError as error:
        pytest.skip(str(error))
    may_use, seen = os.sched_getaffinity(0), set()
    working = Thread(target=lambda: [forward(torch.zeros(BATCH, 3, SIZE, SIZE)) for _ in range(200)])
    working.start()
    while working.is_alive():
        for thread in os.listdir("/proc/self/task"):
            with suppress(OSError):  # it ended
                seen.add(frozenset(os.sched_getaffinity(int(thread))))
    assert seen == {frozenset(may_use)}


def test_folding_removes_batch_norms_and_leaves_the_model_as_it_was(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = backends._folded(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_cannot_be_traced_is_left_unfolded() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    assert isinstance(backends._folded(Branching()), Branching)


def test_a_missing_compiler_makes_a_backend_unavailable_with_its_reason(
    model: nn.Module, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler found\nlong explanation")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(UnavailableError, match=r"no C\+\+ compiler found$"):
        build("compiled", model, (BATCH, 3, SIZE, SIZE), CPU)
    choice = choose_backend(model, pixels, ["eager", "compiled"], BATCH)
    assert choice.name == "eager"
    assert "no C++ compiler" in choice.unavailable["compiled"]


def test_a_named_backend_that_cannot_run_is_an_error_with_the_remedy(
    model: nn.Module, pixels: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", None)
    with pytest.raises(ValueError, match=r"predict\.backend=compiled cannot be used here.*use predict\.backend=auto"):
        choose_backend(model, pixels, ["compiled"], BATCH)


def test_choice_measures_and_records(model: nn.Module, pixels: torch.Tensor) -> None:
    choice = choose_backend(model, pixels[:5], ["eager", "channels_last", "frozen"], BATCH)
    assert choice.name in choice.rates
    assert set(choice.rates) == {"eager", "channels_last", "frozen"}
    assert all(rate > 0 for rate in choice.rates.values())
    assert choice.agreement["frozen"].images == 5, "padding counted as images"
    assert choice.record()["agreement"]["eager"]["logits"] == 0
    assert "channels_last" in choice.line()


def same(logits: float = 0.0) -> Agreement:
    return Agreement(logits, 1.0, 10)


def test_pick_takes_the_fastest_that_is_exact() -> None:
    agreed = {"eager": same(), "channels_last": same(1e-6), "frozen": same(1e-2)}
    choice = pick({"eager": 100, "channels_last": 130, "frozen": 200}, agreed, {})
    assert choice.name == "channels_last"
    assert choice.reason == "1.30 x eager"
    assert "differ from eager's by 1.0e-02" in choice.unavailable["frozen"]


def test_pick_keeps_the_simpler_one_within_the_noise() -> None:
    assert pick({"eager": 100, "frozen": 101}, {"eager": same(), "frozen": same()}, {}).name == "eager"


def test_auto_never_tries_what_changes_answers_and_compiles_only_for_many_images() -> None:
    few, many = allowed_backends("auto", 10_000), allowed_backends("auto", 10_000_000)
    assert not any(BACKENDS[name].changes_answers for name in many)
    assert set(many) - set(few) == {"compiled"}
    assert allowed_backends("fp16", 10) == ["fp16"]


def test_exact_backends_share_a_fingerprint_and_the_others_have_their_own() -> None:
    exact = [identity(PredictSettings(backend=name)) for name in ("auto", "eager", "frozen", "openvino")]
    assert all(one == exact[0] for one in exact)
    assert identity(PredictSettings(backend="bf16")) != exact[0]
    assert identity(PredictSettings(decode="scaled")) != exact[0]
    assert identity(PredictSettings(batch_size=7)) == exact[0]
