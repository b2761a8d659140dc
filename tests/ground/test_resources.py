"""Resources of a predict step on a cluster."""

import pytest

from engine.ground.resources import ActorPoolSpec, allocate_actors, cpus_each, pool_sizes


@pytest.mark.parametrize(
    ("resources", "work", "expected"),
    [
        ({"CPU": 4.0}, 100, ActorPoolSpec(4, 1.0, 0.0, 1)),
        ({"CPU": 4.0}, 3, ActorPoolSpec(3, 1.0, 0.0, 1)),
        ({"CPU": 48.0, "GPU": 12.0}, 1000, ActorPoolSpec(12, 1.0, 1.0, 4)),
        ({"CPU": 2.0, "GPU": 4.0}, 1000, ActorPoolSpec(4, 0.5, 1.0, 1)),
        ({}, 5, ActorPoolSpec(1, 1.0, 0.0, 1)),
    ],
)
def test_one_worker_per_gpu_else_per_cpu_and_at_most_one_per_unit_of_work(
    resources: dict[str, float], work: int, expected: ActorPoolSpec
) -> None:
    assert allocate_actors(resources, work) == expected


def test_more_workers_than_cpus_share_them() -> None:
    assert allocate_actors({"CPU": 2.0}, 10, wanted=4) == ActorPoolSpec(4, 0.5, 0.0, 1)


def test_a_pool_is_fixed_without_a_larger_maximum() -> None:
    assert pool_sizes(4, None) == pool_sizes(4, 3) == pool_sizes(4, 4) == (4, 4, 4)
    assert pool_sizes(4, 16) == (1, 16, 4)


@pytest.mark.parametrize(
    ("nodes", "workers", "each"),
    [
        ([8.0], 1, 8),
        ([8.0], 3, 2),
        ([8.0, 8.0, 8.0, 8.0], 1, 8),
        ([4.0, 4.0, 4.0], 2, 4),
        ([4.0, 4.0, 4.0], 4, 2),
        ([0.0, 16.0, 4.0], 2, 8),
        ([0.0, 16.0, 4.0], 5, 4),
        ([2.0], 8, 1),
        ([], 1, 1),
    ],
)
def test_no_worker_spans_two_nodes(nodes: list[float], workers: int, each: int) -> None:
    assert cpus_each(nodes, workers) == each
    assert sum(int(node // (each + 1)) for node in nodes) < workers, "more would fit"
