"""The fast ways give what the plain ones give."""

import numpy as np
import pytest

from engine.select import blocks
from engine.select.topk import best_first


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_the_compiled_cut_equals_the_sorted_one(dtype: type[np.unsignedinteger]) -> None:
    """Radix selection against a sort: few and many equal scores, classes with too little, classes of which none is wanted."""
    kernel = pytest.importorskip("engine.select.kernel")
    random = np.random.default_rng(11)
    for scores in (3, 300, 1 << 16) * 5:
        num_classes = int(random.integers(1, 40))
        rows = 256 * num_classes + int(random.integers(0, 5_000))
        key = (random.integers(0, num_classes, rows).astype(dtype) << 16) | random.integers(0, scores, rows).astype(
            dtype
        )
        k = random.integers(0, 2 * rows // num_classes, num_classes)
        k[0] = 0
        (worst, over), (expected, more) = kernel.worst_kept(key, k, num_classes), blocks.worst_kept(key, k, num_classes)
        assert worst.dtype == expected.dtype
        np.testing.assert_array_equal(worst, expected)
        np.testing.assert_array_equal(over, more)


@pytest.mark.parametrize("rows", [0, 100, 20_000])
def test_ranking_equals_lexsort(rows: int) -> None:
    """Few and many rows a class, a class without any, and hashes that agree in the half that is sorted first."""
    random = np.random.default_rng(rows)
    classes = random.choice([0, 1, 3, 4], rows).astype(np.uint32)
    key = (classes << 16) | random.integers(0, 50, rows).astype(np.uint32)
    tie = (random.integers(0, 9, rows).astype(np.uint64) << np.uint64(32)) | random.permutation(rows).astype(np.uint64)
    np.testing.assert_array_equal(best_first(key, tie), np.lexsort((tie, key)))
