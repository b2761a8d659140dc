"""Bootstrap intervals and permutation tests: coverage in a small simulation, p values against every pattern written out."""

from itertools import product

import numpy as np
import pytest

from engine.metrics.resampling import RESAMPLES, bootstrap, bootstrap_weights, permutation_p_value


def test_weights_are_draws_with_replacement() -> None:
    weights = np.concatenate(list(bootstrap_weights(30, 500, seed=1)), axis=1)
    assert weights.shape == (30, 500)
    assert (weights.sum(axis=0) == 30).all()
    assert weights.var() == pytest.approx(1 - 1 / 30, rel=0.05)  # binomial(30, 1/30)
    np.testing.assert_array_equal(weights, np.concatenate(list(bootstrap_weights(30, 500, seed=1)), axis=1))


def test_a_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    """400 samples of 80 skewed values: 95 % intervals hold the true mean, 1, in 90 % to 98 % of them."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        sample = rng.gamma(2, 0.5, 80)
        found = bootstrap(lambda w, s=sample: s @ w / w.sum(axis=0), 80, resamples=400, seed=trial)  # type: ignore[misc]
        covered += found.low <= 1 <= found.high
    assert 0.90 <= covered / 400 <= 0.98


@pytest.mark.parametrize("images", [1, 4, 10])
def test_a_sign_flip_p_value_is_the_share_of_all_patterns(images: int) -> None:
    gain = np.random.default_rng(images).normal(0.3, 1, images)
    by_hand = [abs(np.dot(signs, gain)) for signs in product([1, -1], repeat=images)]
    wanted = np.mean(np.array(by_hand) >= abs(gain.sum()) - 1e-12)
    found = permutation_p_value(lambda flipped: np.where(flipped, -1, 1).T @ gain / images, images)
    assert found == pytest.approx(wanted)


def test_random_patterns_come_close_to_all_of_them_and_to_no_zero() -> None:
    """16 images have 65,536 patterns; the standard error of 1,000 random ones is below 0.016."""
    gain = np.random.default_rng(2).normal(0.4, 1, 16)
    signs = np.where(np.arange(2**16)[:, None] >> np.arange(16) & 1, -1, 1)
    wanted = np.mean(np.abs(signs @ gain) >= abs(gain.sum()) - 1e-12)
    assert permutation_p_value(lambda f: np.where(f, -1, 1).T @ gain, 16) == pytest.approx(wanted, abs=0.05)
    certain = permutation_p_value(lambda f: np.where(f, -1, 1).sum(axis=0).astype(float), 200)
    assert certain == 1 / (RESAMPLES + 1)
