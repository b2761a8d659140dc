"""What `freeze` names stays bit for bit as it was, batch norms too; the rest learns."""

import pytest
import torch

from engine.fit.learner import Learner
from engine.fit.objective import Context
from engine.models.build import build_model
from engine.settings.model import ModelSettings
from tests.fit.sets import fit_settings

MODEL = ModelSettings(model="resnet8_cifar", img_size=8, model_args={"width": 8})


def learner(**changes: object) -> Learner:
    settings = fit_settings(model_ema=False, **changes)
    torch.manual_seed(0)
    return Learner(Context(torch.device("cpu"), settings, MODEL, tuple("abcd")), build_model(MODEL, 4))


@pytest.mark.parametrize("freeze_steps", [0, 2])
def test_frozen_weights_and_statistics_are_bit_identical_after_steps(freeze_steps: int) -> None:
    frozen = ("body.0.", "body.1.")
    one = learner(freeze=["body.0", "body.1"], freeze_steps=freeze_steps)
    before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    for step in range(4):
        one.begin(step)
        one.update_weights(one(torch.randn(6, 3, 8, 8)).square().mean(), step)
    moved = {name for name, tensor in one.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved, "nothing learned"
    assert not [name for name in moved if name.startswith(frozen)]
    others = {name for name, _ in one.model.named_parameters() if not name.startswith(frozen)}
    assert others <= moved


def test_a_name_that_no_weight_has_is_told() -> None:
    with pytest.raises(ValueError, match=r"no weight of .* begins so; its parts are"):
        learner(freeze=["layer9"])
