"""Some images of a collection, by address."""

import numpy as np

from engine.images.subset import Subset


def test_a_subset_does_not_depend_on_the_order_of_its_images() -> None:
    one = Subset.of(np.array([2, 0, 2], np.int32), np.array([1, 7, 1], np.int32))
    other = Subset.of(np.array([0, 2]), np.array([7, 1]))
    assert one.digest == other.digest
    assert one.digest != Subset.of(np.array([0, 2]), np.array([7, 2])).digest
    assert one.shards.tolist() == [0, 2]
    assert [one.rows(shard).tolist() for shard in range(4)] == [[7], [], [1], []]


def test_rows_beyond_16_bits_and_membership() -> None:
    big = np.array([0, 2**31 - 1, 5])
    subset = Subset.of(np.array([1, 1, 3], np.int32), big.astype(np.int32))
    assert subset.rows(1).tolist() == [0, 2**31 - 1]
    assert subset.holds(np.array([1, 1, 3, 0]), np.array([0, 1, 5, 0])).tolist() == [True, False, True, False]
