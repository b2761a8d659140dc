"""Log-odds: exact order where rounded probabilities are all one."""

from pathlib import Path

import numpy as np
import torch

from engine.models.build import build_model
from engine.models.checkpoint import save
from engine.predict.predictor import Predictor
from engine.settings.model import ModelSettings
from engine.settings.predict import PredictSettings
from engine.tasks.answers import top_log_odds


def test_log_odds_match_high_precision() -> None:
    logits = torch.randn(500, 12, generator=torch.Generator().manual_seed(0)) * 6
    classes, odds = top_log_odds(logits, 4)
    exact = np.exp(np.float128(logits.numpy()))
    p = exact / exact.sum(1, keepdims=True)
    expected = np.log(p) - np.log((exact.sum(1, keepdims=True) - exact) / exact.sum(1, keepdims=True))
    np.testing.assert_allclose(
        odds.numpy(), np.take_along_axis(expected, classes.numpy(), 1).astype(np.float64), rtol=2e-4, atol=2e-4
    )
    assert (odds[:, :-1] >= odds[:, 1:]).all()


def test_an_over_confident_teacher_keeps_its_order() -> None:
    """With margins of 20 to 40, every float32 probability is exactly 1; the log-odds are the margins."""
    margins = torch.linspace(20, 40, 64)
    logits = torch.zeros(64, 2)
    logits[:, 0] = margins
    assert (torch.softmax(logits, 1)[:, 0] == 1).all()
    _, odds = top_log_odds(logits, 1)
    assert (odds[1:, 0] > odds[:-1, 0]).all()
    torch.testing.assert_close(odds[:, 0], margins)


def test_log_odds_are_the_same_for_logits_and_log_probabilities() -> None:
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(1))
    for one, other in zip(top_log_odds(logits, 5), top_log_odds(torch.log_softmax(logits, 1), 5), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_with_a_sigmoid_every_class_has_a_probability_of_its_own(tmp_path: Path) -> None:
    settings = ModelSettings(model="resnet8_cifar", img_size=16, model_args={"width": 8})
    torch.manual_seed(0)
    save(tmp_path, build_model(settings, 5), settings, list("abcde"))
    images = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8)
    one = Predictor(tmp_path, PredictSettings(top_p=5, activation="sigmoid", backend="eager", temperature=2))
    logits = one.logits(images)[0] / 2
    classes, scores = one(images)
    np.testing.assert_allclose(scores, np.take_along_axis(logits.numpy(), classes, 1).astype(np.float16))
    assert (np.diff(scores.astype(np.float32), axis=1) <= 0).all()

    both = Predictor(tmp_path, PredictSettings(top_p=5, activation="sigmoid", backend="eager", views="flip"))
    mean = torch.stack([view.sigmoid() for view in both.logits(images)]).mean(0).logit()
    classes, scores = both(images)
    np.testing.assert_allclose(scores, np.take_along_axis(mean.numpy(), classes, 1), atol=5e-3)
