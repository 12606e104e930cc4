"""Weights by rarity: those of the paper's formula, with mean 1, and finite where nobody rated."""

import numpy as np
import pytest

from finetune_monitor.studies.aesthetic_head.fitting import gaussian_kernel, rarity

SCALE = (0.0, 10.0)


def test_the_kernel_is_the_gaussian_of_five_bins_with_a_spread_of_two():
    expected = np.exp([-0.5, -0.125, 0, -0.125, -0.5])
    assert gaussian_kernel() == pytest.approx(expected / expected.sum())


def test_weights_are_one_over_the_smoothed_root_of_the_counts():
    train = np.repeat([4.25, 5.25, 6.25], [4, 100, 9])
    counts = np.zeros(24)
    counts[[10, 12, 14]] = 2, 10, 3  # roots of the counts in bins of half a point, two empty bins before them
    density = np.array([np.dot(counts[bin : bin + 5], gaussian_kernel()) for bin in range(20)])
    expected = 1 / density[[8, 10, 12]]
    found = rarity(np.array([4.25, 5.25, 6.25]), train, SCALE)
    assert found / found[1] == pytest.approx(expected / expected[1])


def test_the_training_weights_have_mean_one_and_rare_ratings_weigh_more():
    train = np.clip(np.random.default_rng(0).normal(5.4, 0.7, 20_000), 1, 10)
    weights = rarity(train, train, SCALE)
    assert weights.mean() == pytest.approx(1)
    assert weights[train < 3.5].min() > 3 * weights[np.abs(train - 5.4) < 0.3].max()


@pytest.mark.parametrize("rating", [0.0, 10.0, 9.9])
def test_a_rating_far_from_all_training_ratings_weighs_as_much_as_the_rarest(rating):
    train = np.repeat([4.25, 5.25], [1, 100])
    assert rarity(np.array([rating]), train, SCALE) == pytest.approx(rarity(np.array([3.25]), train, SCALE).max())


def test_ratings_on_another_scale_have_the_same_weights():
    train = np.random.default_rng(1).uniform(2, 7, 300)
    assert rarity(train * 0.4 + 1, train * 0.4 + 1, (1.0, 5.0)) == pytest.approx(rarity(train, train, SCALE))
