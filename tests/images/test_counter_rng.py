"""Counter-based random numbers: known values, no dependence on the batch, uniform."""

import numpy as np

from engine.images.counter_rng import uniforms


def _splitmix(z: int) -> int:
    mask = 2**64 - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_numbers_are_splitmix64_of_seed_and_counter() -> None:
    seeds = [0, 1, 2**63, 2**64 - 1]
    found = uniforms(np.array(seeds, np.uint64), 3)
    for row, seed in zip(found, seeds, strict=True):
        for k, number in enumerate(row, start=1):
            bits = _splitmix((_splitmix(seed) + k * 0x9E3779B97F4A7C15) % 2**64)
            assert number == (bits >> 11) / 2**53


def test_a_number_depends_only_on_its_seed_and_index() -> None:
    seeds = np.arange(50, dtype=np.uint64)
    whole = uniforms(seeds, 7)
    np.testing.assert_array_equal(whole[10:20], uniforms(seeds[10:20], 7))
    np.testing.assert_array_equal(whole[:, :3], uniforms(seeds, 3))
    assert uniforms(seeds[:0], 4).shape == (0, 4)


def test_consecutive_seeds_give_uniform_independent_numbers() -> None:
    numbers = uniforms(np.arange(100_000, dtype=np.uint64), 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        counts = np.histogram(column, 50, (0, 1))[0]
        assert ((counts - 2000) ** 2 / 2000).sum() < 95  # chi-square of 49 degrees: 94 at p = 1e-4
    correlations = np.corrcoef(np.vstack([numbers.T, np.roll(numbers, 1, axis=0).T]))
    assert np.abs(correlations - np.eye(8)).max() < 0.015
