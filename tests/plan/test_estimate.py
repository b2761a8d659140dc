"""The arithmetic of the estimates, calculated by hand."""

from typing import Any

import pytest

from engine.ground.progress import format_duration
from engine.plan.estimate import ClusterCapacity, MeasuredCosts, PoolTotals, estimate, format_bytes
from engine.plan.measure import mean_costs
from engine.settings.block import SettingsError, load, parse
from engine.settings.jobs import PlanJobSettings
from jobs.plan import connected_cluster, described_cluster, scaled_pool, total

MEASURED = MeasuredCosts(
    images=2000,
    read=0.0001,
    decode=0.001,
    infer=0.008,
    write=0.0009,
    image_bytes=100_000,
    prediction_bytes=24,
    resident=10**9,
    boot=2.0,
    start_up=10.0,
    select=1e-6,
)
POOL = PoolTotals(images=1_000_000, bytes=10**11, shards=500)


def test_on_cpus_the_stages_add_up() -> None:
    """10 ms per image, 20 workers, 25 shards per worker of 2000 images: 500 s."""
    predict, select, gather = estimate(MEASURED, POOL, ClusterCapacity(nodes=5, cpus=20, price=3.6), selected=0.1)
    assert predict.seconds == pytest.approx(500 + 10)
    assert predict.cost == pytest.approx(510 / 3600 * 5 * 3.6)
    assert (predict.read, predict.written, predict.memory) == (10**11, 24_000_000, 10**9)
    assert predict.bound == "infer"
    assert select.seconds == pytest.approx(1 / 20 + 2)
    assert select.read == 24_000_000
    assert (gather.read, gather.written) == (10**10, 10**10)
    assert gather.seconds == pytest.approx(2 * 0.0001 * 100_000 / 20 + 2)


def test_on_gpus_decoding_and_inference_overlap() -> None:
    gpus = ClusterCapacity(nodes=1, cpus=10, gpus=2, infer=0.0001)
    predict = estimate(MEASURED, POOL, gpus)[0]
    assert predict.seconds == pytest.approx(1_000_000 / 2 * (0.0001 + 0.0009) + 10)
    few_cpus = ClusterCapacity(nodes=1, cpus=2, gpus=2, infer=0.0001)
    slower = estimate(MEASURED, POOL, few_cpus)[0]
    assert slower.seconds == pytest.approx(1_000_000 / 2 * 0.0011 + 10)
    assert slower.bound == "decode"


def test_more_workers_than_shards_do_not_help() -> None:
    few = PoolTotals(images=1000, bytes=10**8, shards=2)
    times = [estimate(MEASURED, few, ClusterCapacity(nodes=n, cpus=2 * n))[0] for n in (1, 100)]
    assert times[0].seconds == times[1].seconds
    assert times[1].bound == "too few shards for the workers"


def test_the_network_bounds_the_rate() -> None:
    predict = estimate(MEASURED, POOL, ClusterCapacity(nodes=100, cpus=6400, bandwidth=10**6))[0]
    assert predict.bound == "network"
    assert predict.seconds == pytest.approx(10**11 / (100 * 10**6) + 10)


def test_twice_the_images_take_twice_the_time() -> None:
    plan = PlanJobSettings.model_validate(
        {"model": "m", "images": {"uri": "u"}, "plan": {"pool_images": 2_000_000}}
    ).plan
    doubled = scaled_pool(POOL, plan)
    assert doubled == PoolTotals(2_000_000, 2 * 10**11, 1000)
    once, twice = (estimate(MEASURED, pool, ClusterCapacity(5, 20)) for pool in (POOL, doubled))
    assert twice[0].seconds - 10 == pytest.approx(2 * (once[0].seconds - 10))
    assert total(once).seconds == pytest.approx(sum(step.seconds for step in once))


def test_sums_of_workers_become_costs_per_image() -> None:
    stages = dict.fromkeys(("decode", "infer", "write", "wait", "select"), 1.0)
    one = {"images": 90, "seen": 100, "bytes": 5000, "predictions": 1800, "resident": 7, "read": 0.5}
    found = mean_costs([{**one, **stages}, {**one, **stages, "resident": 9}], None, 2.0, 5.0)  # type: ignore[arg-type]
    assert found.images == 200
    assert found.read == pytest.approx(0.005)
    assert (found.image_bytes, found.prediction_bytes) == (50, 20)
    assert (found.boot, found.start_up, found.resident) == (2.0, 5.0, 9)


def test_the_shipped_config_loads_with_a_described_cluster() -> None:
    wanted = ["plan.cluster={nodes: 3, cpus_per_node: 8, gpus_per_node: 2, images_per_second: 500, gbits_per_node: 8}"]
    settings = load(PlanJobSettings, "jobs/configs/plan.yaml", [*wanted, "plan.price_node_hour=2"])
    assert described_cluster(settings.plan) == ClusterCapacity(3, 24, 6, 2.0, 1 / 500, 1e9)


def test_an_idle_head_is_not_counted_and_nodes_may_differ() -> None:
    plan = PlanJobSettings.model_validate({"model": "m", "images": {"uri": "u"}, "plan": {"price_node_hour": 2}}).plan
    head: dict[str, Any] = {"Alive": True, "Resources": {"memory": 1e10}}
    gpu_nodes = [{"Alive": True, "Resources": {"CPU": 16.0, "GPU": 1.0}} for _ in range(3)]
    dead = {"Alive": False, "Resources": {"CPU": 16.0, "GPU": 1.0}}
    machines = connected_cluster([head, *gpu_nodes, dead], plan)
    assert machines == ClusterCapacity(3, 48, 3, 2.0)
    assert machines.workers == 3
    assert connected_cluster([{"Alive": True, "Resources": {"CPU": n}} for n in (3.0, 6.0)], plan).workers == 9
    with pytest.raises(ValueError, match="have no worker"):
        estimate(MEASURED, POOL, connected_cluster([head], plan))


def test_gpus_without_a_rate_raise() -> None:
    tree = {
        "model": "m",
        "images": {"uri": "u"},
        "plan": {"cluster": {"nodes": 1, "cpus_per_node": 1, "gpus_per_node": 1}},
    }
    with pytest.raises(SettingsError, match="needs images_per_second"):
        parse(PlanJobSettings, tree, "test")


def test_sizes_and_times_are_readable() -> None:
    assert [format_duration(s) for s in (40, 125, 3599.6, 7500, 273_600)] == [
        "40 s",
        "2 min 5 s",
        "1 h",
        "2 h 5 min",
        "3 d 4 h",
    ]
    assert [format_bytes(b) for b in (12, 3_400_000_000_000)] == ["12 B", "3.4 TB"]
