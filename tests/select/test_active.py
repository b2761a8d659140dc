"""What a person should label next: known answers on small cases."""

import numpy as np

from engine.select.active import disagreement, diverse, uncertainty
from engine.select.scores import probability
from engine.select.topk import TopK
from tests.select.tables import random_pool


def test_most_uncertain_under_a_budget_a_class() -> None:
    """Per class the rows with the smallest gap between the two best probabilities."""
    pool = random_pool(400, 5, 2, seed=0)
    top_k = TopK(5, 3)
    top_k.update(pool.classes[:, 0].astype(np.uint16), uncertainty(pool.log_odds), pool.shard, pool.row)
    winners = top_k.result()
    p = probability(pool.log_odds)
    gap = (p[:, 0] - p[:, 1]).astype(np.float16)
    for c in range(5):
        smallest = np.sort(gap[pool.classes[:, 0] == c])[:3]
        assert np.array_equal(-winners.scores[winners.classes == c], smallest)


def test_disagreement_is_the_total_variation() -> None:
    """0 for the same prediction, 1 for disjoint ones, half the L1 distance when all classes are stored."""
    random = np.random.default_rng(0)
    first, second = (random.dirichlet(np.ones(4), 50) for _ in range(2))

    def stored(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(-p, axis=1)
        q = np.take_along_axis(p, order, axis=1)
        return order.astype(np.uint16), np.log(q / (1 - q)).astype(np.float16)

    found = disagreement(*stored(first), *stored(second))
    assert np.allclose(found, np.abs(first - second).sum(axis=1) / 2, atol=5e-3)
    assert (disagreement(*stored(first), *stored(first)) < 5e-3).all()
    apart = (np.array([[1]], np.uint16), np.array([[0]], np.float16))
    assert disagreement(*apart, np.array([[2]], np.uint16), apart[1]).tolist() == [1]


def test_diverse_rows_cover_and_leave_out_duplicates() -> None:
    """One row of each cluster before any second one; near copies never; every class has its own budget."""
    random = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], float)
    cluster = np.tile(np.arange(4), 10)
    embeddings = centres[cluster] + random.normal(0, 0.01, (40, 2))
    classes = np.zeros(40, int)
    chosen = diverse(embeddings, classes, budget=4)
    assert set(cluster[chosen]) == {0, 1, 2, 3}
    assert chosen[0] == 0
    assert len(diverse(embeddings, classes, budget=20, min_distance=1.0)) == 4
    two = diverse(embeddings, np.repeat([3, 7], 20), budget=2)
    assert np.repeat([3, 7], 20)[two].tolist() == [3, 3, 7, 7]
