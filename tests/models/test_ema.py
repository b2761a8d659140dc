"""The moving average against its definition."""

import pytest
import torch
from torch import nn

from engine.models.ema import make_average


def test_decay_warms_up_and_weights_follow() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = make_average(model, 0.9)
    expected = torch.zeros(2, 2)
    for step in range(1, 200):
        with torch.no_grad():
            nn.init.constant_(model[0].weight, step)  # type: ignore[arg-type]
            model[1].running_mean.fill_(float(step))  # type: ignore[operator]
            model[1].num_batches_tracked.fill_(step)  # type: ignore[operator]
        average.update(model, step)
        decay = min(0.9, (step - 1) / (step - 1 + 9))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.module[0].weight.data, expected)
    torch.testing.assert_close(average.module[1].running_mean, expected[0])
    assert average.module[1].num_batches_tracked == 199
    assert not average.module.training
    assert average.get_decay(10_000) == pytest.approx(0.9)


def test_state_dict_restores_the_average() -> None:
    model = nn.Linear(3, 2)
    average = make_average(model, 0.5)
    for step in (1, 2):
        nn.init.normal_(model.weight)
        average.update(model, step)
    again = make_average(nn.Linear(3, 2), 0.5)
    again.load_state_dict(average.state_dict())
    for ema in (average, again):
        ema.update(model, 3)
    assert torch.equal(again.module.weight, average.module.weight)
