"""Self-distillation with kernel ridge in place of the network: closed forms of Mobahi et al. 2020 and Borup and Andersen 2021, to 1e-10."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from engine.gather.outputs import output_targets, raw_outputs
from engine.ground.run import pointers
from engine.ground.steps import Store, read_output, read_tables
from engine.labels.mixture import mix_dense
from engine.recipes import self_distillation as module
from engine.recipes.registry import SelfTrainSettings, train
from engine.settings.block import SettingsError, parse
from engine.tables import schema
from engine.tasks.answers import top_log_odds
from tests.small_run import small_tree

LAMBDA, GAMMA = 0.2, 20.0
X = np.linspace(0, 1, 11)[:, None]
Y = np.sin(2 * np.pi * X[:, 0]) + np.random.default_rng(0).normal(0, 0.5, 11)
GRAM = np.exp(-GAMMA * (X - X.T) ** 2)
SHRINK = GRAM @ np.linalg.inv(GRAM + LAMBDA * np.eye(11))


def settings(rounds: int, truth_share: float) -> SelfTrainSettings:
    tree = {
        "recipe": {"name": "self_distillation", "generations": rounds, "truth_share": truth_share},
        "run": "r",
        "data": {"labelled": "l"},
        "models": {"teacher": {"model": "resnet18"}},
        "fits": {"teacher": {"steps": 1, "batch": {"labelled": 1}}},
    }
    return parse(SelfTrainSettings, tree, "test")


class Kernel:
    """The verbs on 11 points of a noisy sinusoid: a stream is its targets (11,), a model its answers on the same points."""

    def __init__(self, rounds: int, truth_share: float) -> None:
        self.settings = settings(rounds, truth_share)
        self.labelled = SimpleNamespace(output=None, targets=Y)
        self.seeds: list[int] = []

    def fit(self, _: str, __: Any, learner: Any, labelled: SimpleNamespace) -> np.ndarray:
        self.seeds.append(learner.seed)
        ridge = KernelRidge(alpha=LAMBDA, kernel="rbf", gamma=GAMMA)
        return ridge.fit(X, labelled.targets).predict(X)

    def predict(self, _: str, model: np.ndarray, on: str) -> np.ndarray:
        assert on == "labelled"
        return model

    def select(self, _: str, predictions: np.ndarray, __: Any, on: str) -> np.ndarray:
        assert on == "labelled"
        return predictions

    def mix(self, _: str, answers: np.ndarray, truth_share: float) -> np.ndarray:
        return mix_dense(Y, answers, truth_share)

    def gather(self, _: str, targets: np.ndarray, on: str) -> SimpleNamespace:
        assert on == "labelled"
        return SimpleNamespace(output=None, targets=targets)

    def evaluate(self, *_: Any) -> None:
        return None

    def pseudo_quality(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


def rounds(monkeypatch: pytest.MonkeyPatch, number: int, truth_share: float) -> tuple[list[Any], list[int]]:
    monkeypatch.setattr(module, "next_teacher", lambda *args, **_: args[3])
    monkeypatch.setattr(module, "stop_without_labels", lambda *_: False)
    setup: Any = Kernel(number, truth_share)
    return [generation.model for generation in train(setup)], setup.seeds


def test_teacher_targets_alone_shrink_by_the_same_matrix_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    models, seeds = rounds(monkeypatch, 6, 0.0)
    for number, model in enumerate(models):
        np.testing.assert_allclose(model, np.linalg.matrix_power(SHRINK, number + 1) @ Y, atol=1e-10)
    assert len(set(seeds)) == 7, "rounds that start alike would retrace one another"


def test_they_collapse_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    models, _ = rounds(monkeypatch, 200, 0.0)
    norms = [np.linalg.norm(model) for model in models]
    assert all(later < earlier for earlier, later in pairwise(norms))
    assert norms[-1] < 0.01 * norms[0]


@pytest.mark.parametrize("share", [0.2, 0.35])
def test_endless_rounds_with_true_labels_are_one_fit_with_lambda_over_the_share(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    models, _ = rounds(monkeypatch, 300, share)
    once = KernelRidge(alpha=LAMBDA / share, kernel="rbf", gamma=GAMMA).fit(X, Y).predict(X)
    np.testing.assert_allclose(models[-1], once, atol=1e-10)
    assert np.abs(models[1] - once).max() > 1e-3, "the first round is there already: the test shows nothing"


def test_with_true_labels_alone_every_round_is_round_0(monkeypatch: pytest.MonkeyPatch) -> None:
    models, _ = rounds(monkeypatch, 4, 1.0)
    for model in models[1:]:
        np.testing.assert_array_equal(model, models[0])


def test_what_is_not_self_distillation_is_refused() -> None:
    tree = settings(1, 0.0).model_dump()
    for group, changed, told in (
        ("models", {"student": {"model": "resnet34"}}, "one architecture"),
        ("fits", {"student": {"steps": 1, "batch": {"pseudo": 1}}}, "labelled images alone"),
    ):
        with pytest.raises(SettingsError, match=told):
            parse(SelfTrainSettings, {**tree, group: {**tree[group], **changed}}, "test")


def test_the_rounds_are_watched_on_validation_images_but_not_for_settled_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[SimpleNamespace] = []

    def stop(*args: Any, settles: bool) -> None:
        asked.append(SimpleNamespace(number=args[1], settles=settles))

    monkeypatch.setattr(module, "next_teacher", stop)
    monkeypatch.setattr(module, "stop_without_labels", lambda *_: False)
    setup: Any = Kernel(5, 0.0)
    assert len(train(setup)) == 2, "the guard said stop"
    assert [(one.number, one.settles) for one in asked] == [(1, False)]


def test_raw_outputs_come_back_from_what_is_stored() -> None:
    """Of outputs as a regression on one-hot labels has them, through float16 log-odds and energy."""
    z = np.random.default_rng(0).normal(0.1, 0.3, (50, 4))
    log_p = torch.from_numpy(z).log_softmax(1)
    classes, scores = top_log_odds(torch.from_numpy(z), 4)
    energy = torch.from_numpy(z).logsumexp(1)
    columns: dict[str, Any] = {
        "shard": np.zeros(50, np.int32),
        "row": np.arange(50, dtype=np.int32),
        "classes": pa.array([one.tobytes() for one in classes.numpy().astype(np.uint16)], pa.binary(8)),
        "scores": pa.array([one.tobytes() for one in scores.numpy().astype(np.float16)], pa.binary(8)),
        "energy": energy.numpy().astype(np.float16),
    }
    table = pa.table(columns).replace_schema_metadata({schema.NUM_CLASSES: "4"})
    assert float((torch.logsumexp(log_p, 1)).abs().max()) < 1e-6
    found = raw_outputs(table, 4)
    np.testing.assert_allclose(found, z, atol=0.004)
    mixed = output_targets(found, np.arange(50) % 4, 0.35)
    dense = np.array(mixed["weights"].to_pylist())
    np.testing.assert_allclose(dense, 0.35 * np.eye(4)[np.arange(50) % 4] + 0.65 * found, atol=1e-6)
    with pytest.raises(ValueError, match=r"predict\.top_p=5 and predict\.extra_scores"):
        raw_outputs(table, 5)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_the_papers_loss_on_outputs_shrinks_them_round_by_round(digits: Path, tmp_path: Path) -> None:
    """Squared loss on the outputs of the round before, without true labels: each round's targets are smaller than those of the one before."""
    from jobs.self_train import self_train

    tree = small_tree(digits, str(tmp_path), recipe="self_distillation", generations=3)
    tree["fits"].pop("student")
    tree["fits"]["teacher"] |= {"loss": "mse_outputs", "steps": 60, "opt": "adamw", "lr": 0.01, "weight_decay": 0.5}
    tree["predict"] |= {"top_p": 10, "extra_scores": ["energy"]}
    tree["select"] = {}
    self_train(parse(SelfTrainSettings, tree, "test"))
    store = Store(str(tmp_path))
    norms = []
    for number in range(1, 4):
        step = next(one.step for one in pointers(store, "run") if one.title == f"round {number} outputs")
        output = read_output(store, step)
        assert output is not None
        assert output.summary["kind"] == "logits"
        weights = [row for _, table in read_tables(output, store.fs) for row in table["weights"].to_pylist()]
        norms.append(float(np.linalg.norm(np.array(weights))))
    assert norms[0] > norms[1] > norms[2]
    tree["predict"].pop("extra_scores")
    with pytest.raises(SettingsError, match=r"set predict\.extra_scores=\[energy\]"):
        parse(SelfTrainSettings, tree, "test")
