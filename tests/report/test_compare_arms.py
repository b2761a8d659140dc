"""The arms of the CIFAR-10 comparison: every offline recipe, within one budget."""

from pathlib import Path

import pytest

from engine.report.compare import refuse_unlike
from engine.report.cost import planned
from tests.benchmarks.compare_cifar10 import BUDGET, arms, settings_of


@pytest.mark.parametrize("arm", arms())
def test_every_arm_spends_the_budget_and_no_more(arm: str, tmp_path: Path) -> None:
    assert 0.95 * BUDGET <= planned(settings_of(arm, tmp_path, tmp_path)) <= BUDGET


def test_arms_can_be_compared_but_for_the_one_with_wrong_labels(tmp_path: Path) -> None:
    made = {arm: settings_of(arm, tmp_path, tmp_path) for arm in arms()}
    with pytest.raises(ValueError, match="clean_labels cannot be compared"):
        refuse_unlike(made)
    made.pop("clean_labels")
    refuse_unlike(made)
