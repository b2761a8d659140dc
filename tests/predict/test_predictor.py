"""Log-odds: exact order where rounded probabilities are all one."""

import numpy as np
import torch

from engine.predict.predictor import top_log_odds


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
