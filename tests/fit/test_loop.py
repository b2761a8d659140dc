"""The loop: resuming changes nothing, divergence is named, and an objective of another task needs no edit of the engine."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.fit.batch import Batch
from engine.fit.loop import DivergedError, Hooks, train
from engine.fit.objective import Context, Objective, create_objective, register_objective
from engine.fit.streams import Stream
from engine.gather.training_set import TrainingSet
from engine.images.views import View
from engine.settings.fit import FitSettings, NoiseSettings
from tests.fit.sets import MODEL, fit_settings, open_stream, write_set

NAMES = tuple("abcd")
NOISE = NoiseSettings(pad=1, aa_num_ops=1, cutout=2).model_dump()


class Recorder:
    """Takes down logs, and checkpoints as files, as a trainer would."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logs, self.saved = folder, list[dict[str, Any]](), list[int]()
        folder.mkdir(parents=True)

    def on_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        self.saved.append(step)
        torch.save({"step": step, "objective": state}, self.folder / f"{step}.pt")

    def load(self, step: int) -> dict[str, Any]:
        return torch.load(self.folder / f"{step}.pt", weights_only=True)


def streams(settings: FitSettings, sets: Mapping[str, TrainingSet], cache: int = 2**20) -> dict[str, Stream]:
    return {
        name: open_stream(name, sets[name], batch_size=size, seed=settings.seed, size=8, cache_bytes=cache)
        for name, size in settings.batch.items()
    }


def context(settings: FitSettings) -> Context:
    return Context(torch.device("cpu"), settings, MODEL, NAMES)


@pytest.mark.parametrize("cache", [2**20, 0])
@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_resumed_equals_undisturbed(tmp_path: Path, opt: str, cache: int) -> None:
    settings = fit_settings(
        steps=20, batch={"labelled": 4, "pseudo": 8}, noise={"pseudo": NOISE}, opt=opt, checkpoint_every=10, lr=0.01
    )
    sets = {"labelled": write_set(tmp_path / "a"), "pseudo": write_set(tmp_path / "b", (20, 9), soft=True, seed=1)}
    undisturbed, resumed = Recorder(tmp_path / "whole"), Recorder(tmp_path / "resumed")
    whole = create_objective(context(settings))
    train(whole, streams(settings, sets, cache), settings, Hooks(undisturbed.on_checkpoint, undisturbed.logs.append))
    assert undisturbed.saved == [10, 20]
    torch.manual_seed(123)  # whatever happened in between
    state = undisturbed.load(10)
    second = create_objective(context(settings))
    second.load_state_dict(state["objective"])
    train(
        second,
        streams(settings, sets, cache),
        settings,
        Hooks(resumed.on_checkpoint, resumed.logs.append),
        start_step=state["step"],
    )
    assert resumed.saved == [20]
    left, right = undisturbed.load(20)["objective"], resumed.load(20)["objective"]
    same(left, right)
    assert undisturbed.logs[-1]["loss"] == resumed.logs[-1]["loss"]


def same(left: Any, right: Any) -> None:
    """Bit for bit."""
    if isinstance(left, Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            same(left[key], right[key])
    elif isinstance(left, list | tuple):
        for a, b in zip(left, right, strict=True):
            same(a, b)
    else:
        assert left == right


def test_it_learns_and_reports(tmp_path: Path) -> None:
    settings = fit_settings(steps=60, batch={"labelled": 16}, checkpoint_every=45, log_every=20, lr=0.1)
    recorder, objective = Recorder(tmp_path / "run"), create_objective(context(settings))
    sets = {"labelled": write_set(tmp_path / "a", (64,))}
    last = train(objective, streams(settings, sets), settings, Hooks(recorder.on_checkpoint, recorder.logs.append))
    assert [log["step"] for log in recorder.logs] == [20, 40, 45, 60]
    assert recorder.saved == [45, 60]
    assert last == recorder.logs[-1]
    assert last["loss"] < 0.5 * recorder.logs[0]["loss"]
    assert last["agreement/labelled"] > 0.8
    assert last["images_per_second"] == pytest.approx(16 / last["seconds_per_step"])
    assert 0 <= last["waiting"] <= 1
    # a run that was killed between its last checkpoint and its end gets its last checkpoint once more
    train(objective, {}, settings, Hooks(recorder.on_checkpoint, recorder.logs.append), start_step=60)
    assert recorder.saved == [45, 60, 60]


def test_threads_end_with_the_training_whether_it_ends_well_or_not(tmp_path: Path) -> None:
    settings = fit_settings()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            create_objective(context(settings)),
            streams(settings, {"labelled": write_set(tmp_path / "a")}),
            settings,
            Hooks(interrupted, print),
        )
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch-")]


def test_divergence_names_the_step_and_saves_nothing(tmp_path: Path) -> None:
    class Diverging(Objective):
        def step(self, batches: Mapping[str, Batch], step: int) -> dict[str, Tensor]:  # noqa: ARG002
            return {"loss": torch.tensor(float("nan") if step >= 7 else 1.0)}

        def export(self) -> nn.Module:
            raise AssertionError("a run that diverged exports nothing")

    settings, recorder = fit_settings(log_every=5), Recorder(tmp_path / "run")
    with pytest.raises(DivergedError, match=r"at step 7.*fit.lr"):
        train(
            Diverging(context(settings)),
            streams(settings, {"labelled": write_set(tmp_path / "a")}),
            settings,
            Hooks(recorder.on_checkpoint, recorder.logs.append),
        )
    assert recorder.saved == []
    assert [log["step"] for log in recorder.logs] == [5]


def test_a_failing_stream_ends_the_run(tmp_path: Path) -> None:
    class Broken:
        def batch(self, step: int) -> Batch:
            raise OSError(f"no network at step {step}")

    recorder, settings = Recorder(tmp_path / "run"), fit_settings()
    objective = create_objective(context(settings))
    with pytest.raises(OSError, match="step 0"):
        train(objective, {"labelled": Broken()}, settings, Hooks(recorder.on_checkpoint, print))


@register_objective("masks of tests")
class Masks(Objective):
    """Image-shaped targets, two modules, two optimisers: what segmentation and Meta Pseudo Labels ask of the seam."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        torch.manual_seed(context.settings.seed)
        self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.net = context.distribute(nn.Sequential(self.body, nn.ReLU(), self.head))
        self.optimisers = [torch.optim.Adam(part.parameters(), lr=0.05) for part in (self.body, self.head)]
        self.parts = dict(
            zip(("body", "head", "body_opt", "head_opt"), (self.body, self.head, *self.optimisers), strict=True)
        )
        self.view = View(NoiseSettings(hflip=0.5), 8, (0.5,) * 3, (0.25,) * 3)

    def step(self, batches: Mapping[str, Batch], step: int) -> dict[str, Tensor | float]:  # noqa: ARG002
        batch = batches["labelled"]
        images, mask = self.view(batch.images, batch.seeds, batch.mask)
        assert mask is not None
        loss = nn.functional.binary_cross_entropy_with_logits(self.net(images), mask.float())
        for each in self.optimisers:
            each.zero_grad()
        loss.backward()
        for each in self.optimisers:
            each.step()
        return {"loss": loss.detach()}

    def export(self) -> nn.Module:
        return self.net


@pytest.mark.parametrize("name", ["masks of tests", "tests.fit.test_loop:Masks"])
def test_an_objective_of_another_task_needs_no_edit_of_the_engine(tmp_path: Path, name: str) -> None:
    settings = fit_settings(objective=name, steps=60, log_every=20, checkpoint_every=60)
    recorder, objective = Recorder(tmp_path / "run"), create_objective(context(settings))
    sets = {"labelled": write_set(tmp_path / "a", (24,), masks=True)}
    last = train(objective, streams(settings, sets), settings, Hooks(recorder.on_checkpoint, recorder.logs.append))
    assert last["loss"] < 0.5 * recorder.logs[0]["loss"]
    again = create_objective(context(settings))
    again.load_state_dict(recorder.load(60)["objective"])
    same(again.state_dict(), objective.state_dict())
    with pytest.raises(ValueError, match="another objective"):
        create_objective(context(fit_settings())).load_state_dict(recorder.load(60)["objective"])
    with pytest.raises(ValueError, match="registered already"):
        register_objective("masks of tests")(Masks)


def test_a_warning_saves_what_was_learnt_out_of_turn(tmp_path: Path) -> None:
    """Asked every `log_every` steps, and not where a checkpoint is due anyway."""
    settings = fit_settings(steps=8, batch={"labelled": 4}, checkpoint_every=4, log_every=2)
    recorder, asked = Recorder(tmp_path / "run"), list[int]()

    def warned() -> bool:
        asked.append(recorder.logs[-1]["step"])
        return asked[-1] == 6

    train(
        create_objective(context(settings)),
        streams(settings, {"labelled": write_set(tmp_path / "a")}),
        settings,
        Hooks(recorder.on_checkpoint, recorder.logs.append, warned),
    )
    assert asked == [2, 6]
    assert recorder.saved == [4, 6, 8]
