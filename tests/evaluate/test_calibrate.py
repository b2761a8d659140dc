"""A planted temperature is found from stored predictions, and dividing by it repairs the confidence."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from engine.evaluate.calibrate import fit_on
from engine.recipes.registry import SelfTrainSettings
from engine.select.scores import pack, probability, scores_of
from engine.settings.block import SettingsError, identity, parse
from engine.settings.predict import PredictSettings
from engine.tables import schema
from engine.tasks.answers import top_log_odds
from tests.select.tables import manifest


def stored(logits: np.ndarray) -> pa.Table:
    """The predictions table that a teacher with these logits (N, C) would write."""
    number, num_classes = logits.shape
    best, odds = top_log_odds(torch.from_numpy(logits), num_classes)
    rows = np.arange(number, dtype=np.int32)
    expected = schema.predictions(num_classes, manifest(num_classes).hash, num_classes)
    return pack(np.zeros(number, np.int32), rows, best.numpy(), odds.numpy().astype(np.float16), expected)


def test_a_planted_temperature_is_found_and_repairs_the_confidence() -> None:
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (20_000, 5))
    p = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    truth = (p.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1).clip(0, 4)
    fitted = fit_on(stored(2.5 * honest), truth)
    assert fitted.value == pytest.approx(2.5, rel=0.03)
    assert fitted.after.error < 0.02 < 0.1 < fitted.before.error
    repaired = probability(scores_of(stored(2.5 * honest / fitted.value))[:, 0])
    assert abs(repaired.mean() - (honest.argmax(axis=1) == truth).mean()) < 0.01


def test_a_temperature_of_one_leaves_the_fingerprint_alone() -> None:
    plain = identity(PredictSettings())
    assert "temperature" not in plain
    assert identity(PredictSettings(calibrate=True, batch_size=7)) == plain
    assert identity(PredictSettings(temperature=1.5)) == plain | {"temperature": 1.5}


def test_calibration_without_validation_is_refused() -> None:
    tree = {
        "run": "r",
        "recipe": "supervised",
        "data": {"labelled": "l"},
        "models": {"teacher": {"model": "resnet18"}},
        "fits": {"teacher": {"steps": 1, "batch": {"labelled": 1}}},
        "predict": {"calibrate": True},
    }
    with pytest.raises(SettingsError, match=r"set data\.validation"):
        parse(SelfTrainSettings, tree, "here")
