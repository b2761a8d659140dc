"""What is stored beside the best classes, against high precision; and through a whole shard, named in the schema."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.images.collection import Collection
from engine.images.manifest import Manifest
from engine.images.scope import Scope
from engine.predict.predictor import Predictor
from engine.predict.shard_predictor import ShardPredictor
from engine.select.scores import probability, scores_of
from engine.settings.block import identity
from engine.settings.predict import PredictSettings
from engine.tasks.extra_scores import certainty, extra_score_columns
from tests.predict.test_shard_predictor import manifest, teacher

__all__ = ["manifest", "teacher"]  # fixtures


def test_columns_match_high_precision() -> None:
    logits = torch.randn(400, 12, generator=torch.Generator().manual_seed(0)) * 5 + 3
    log_p, log_sum = torch.log_softmax(logits, 1), torch.logsumexp(logits, 1)
    found = extra_score_columns(log_p, log_sum, ["energy", "entropy", "log_sum_exp_0.5"]).numpy()
    exact = np.exp(np.float128(logits.numpy()))
    p = exact / exact.sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1)
    wanted = [np.log(exact.sum(1)), np.log((np.log(12) - entropy) / entropy), np.log((p**2).sum(1))]
    np.testing.assert_allclose(found, np.stack(wanted, 1).astype(np.float64), rtol=1e-3, atol=2e-3)


def test_certainty_keeps_its_order_where_p_rounds_to_one() -> None:
    """Margins of 20 to 40: the entropy falls on, and a uniform answer is at the other end."""
    logits = torch.zeros(64, 3)
    logits[:, 0] = torch.linspace(20, 40, 64)
    score = certainty(torch.log_softmax(logits, 1))
    assert (score[1:] > score[:-1]).all()
    uniform = certainty(torch.log_softmax(torch.zeros(1, 3), 1))
    assert probability(uniform.numpy())[0] < 1e-5


@pytest.mark.parametrize("views", ["one", "flip"])
def test_a_shard_holds_what_was_asked_for(manifest: Manifest, teacher: Path, views: str) -> None:
    """The named columns, true to all classes stored by themselves; nothing is added when nothing is asked."""
    asked = PredictSettings(
        top_p=10, batch_size=8, extra_scores=["entropy", "energy"], log_sum_exp=[0.5], temperature=1.5, views=views
    )
    found = ShardPredictor(Scope(Collection("pool", manifest)), Predictor(teacher, asked))(0).predictions
    assert found.schema.names[4:] == ["energy", "entropy", "log_sum_exp_0.5"]
    p = probability(scores_of(found))
    entropy = -(p * np.log(p)).sum(1)
    sure = probability(found["entropy"].to_numpy())
    np.testing.assert_allclose(sure, 1 - entropy / np.log(10), atol=5e-3)
    np.testing.assert_allclose(found["log_sum_exp_0.5"].to_numpy(), np.log((p**2).sum(1)), atol=2e-2)
    assert np.isfinite(found["energy"].to_numpy()).all()
    plain = PredictSettings(top_p=10, batch_size=8)
    assert (
        ShardPredictor(Scope(Collection("pool", manifest)), Predictor(teacher, plain))(0).predictions.schema.names[4:]
        == []
    )
    assert identity(plain) == {"top_p": 10}
    assert asked.columns == ("energy", "entropy", "log_sum_exp_0.5")
