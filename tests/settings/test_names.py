"""The lists of names that settings are checked against are those of what bears the names."""

import pytest
import timm

from engine.fit.losses import LOSSES
from engine.fit.objective import find_objective
from engine.images.corruptions import FAMILIES
from engine.models import cifar as _registers_networks  # noqa: F401
from engine.settings import names
from engine.settings.names import check_or_class
from engine.tasks.registry import TASKS


def test_the_lists_are_those_of_the_rooms_above() -> None:
    assert set(names.LOSSES) == set(LOSSES)
    assert list(names.CORRUPTIONS) == list(FAMILIES)
    assert set(names.TASKS) == set(TASKS)
    assert set(names.OWN_NETWORKS) == set(timm.list_models(module="cifar"))
    assert all(find_objective(name) for name in names.OBJECTIVES)


@pytest.mark.parametrize("name", ["superwised", "a b:C", "module:", ":Class", "os.system('x'):y"])
def test_what_is_neither_a_name_nor_a_class_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown.*package\.module:Class"):
        check_or_class("objective", name, names.OBJECTIVES)
