"""The resource plan on synthetic clusters: resources of each step, and the warnings when they do not fit."""

from typing import Any

import pytest

from engine.plan.resource_plan import GIB, plan_resources, print_plan, warnings
from engine.recipes.registry import SelfTrainSettings
from engine.report.console import Console
from tests.search.making import searched

LAPTOP = {"CPU": 2.0, "memory": 16.0 * GIB}
GPUS = {"CPU": 64.0, "GPU": 4.0, "memory": 256.0 * GIB}


def settings(**cluster: Any) -> SelfTrainSettings:
    return searched(cluster=cluster).base()


def test_on_a_laptop_every_step_has_all_resources() -> None:
    shares = {share.step: share for share in plan_resources(settings(), LAPTOP)}
    assert list(shares) == ["teacher fit", "predict", "select", "gather", "student fit"]
    assert (shares["teacher fit"].workers, shares["teacher fit"].cpus) == (1, 2)
    assert (shares["predict"].workers, shares["predict"].cpus) == (2, 1)
    assert warnings(list(shares.values()), LAPTOP) == []


def test_on_gpus_predict_takes_one_per_worker_and_decodes_on_the_cpus() -> None:
    shares = {share.step: share for share in plan_resources(settings(train={"workers": 4}), GPUS)}
    assert (shares["predict"].workers, shares["predict"].gpus) == (4, 1)
    assert "16 decoding threads each" in shares["predict"].note
    assert (shares["student fit"].workers, shares["student fit"].gpus) == (4, 1)


def test_a_run_without_pool_only_fits() -> None:
    alone = searched(recipe="supervised", search={"mode": "runs"}).base()
    assert [share.step for share in plan_resources(alone, LAPTOP)] == ["teacher fit", "student fit"]


def test_steps_that_do_not_fit_are_reported_with_the_remedy() -> None:
    messages = warnings(
        plan_resources(settings(train={"workers": 8, "cpus": 2}, label={"workers": 64}), LAPTOP), LAPTOP
    )
    assert any("teacher fit needs 16 CPUs, the cluster has 2" in line for line in messages)
    assert any("lower its workers or cache_bytes" in line for line in messages)
    assert not any("predict needs" in line for line in messages), "predict workers share CPUs"


@pytest.mark.parametrize("resources", [LAPTOP, GPUS])
def test_the_plan_is_printed(resources: dict[str, float]) -> None:
    console = Console(width=150, record=True, quiet=False)
    planned = plan_resources(settings(train={"workers": 8}), resources)
    print_plan(planned, resources, console=console)
    text = console.export_text()
    for word in ("Resources: ", "predict", "gather", "CPUs/worker"):
        assert word in text
    assert ("needs" in text) == (resources is LAPTOP), "what does not fit is reported, and nothing else"


def test_a_fit_takes_one_node_and_warns_when_none_is_large_enough() -> None:
    four = {"CPU": 32.0, "memory": 128.0 * GIB}
    nodes = [0.0, 8.0, 8.0, 8.0, 8.0]
    shares = {share.step: share for share in plan_resources(settings(), four, nodes)}
    assert shares["teacher fit"].cpus == 8
    assert warnings(list(shares.values()), four, nodes) == []
    excessive = plan_resources(settings(train={"cpus": 16}), four, nodes)
    assert any("needs 16 CPUs on one node, the largest has 8" in line for line in warnings(excessive, four, nodes))
