"""Resamples draw persons first and then their images, and an interval says where a statistic would lie with others."""

import numpy as np
import pytest
from scipy.stats import norm

from finetune_monitor.stats.resampling import Average, estimate, resamples

GROUPS = np.array([0] * 4 + [1] * 6 + [2] * 10)


def test_the_first_row_is_the_sample_itself():
    assert (resamples(GROUPS, 3)[0] == 1).all()


def test_persons_are_drawn_as_wholes_as_often_as_there_are_persons():
    weights = resamples(GROUPS, 400)[1:]
    drawn = np.stack([weights[:, g == GROUPS].sum(axis=1) / (g == GROUPS).sum() for g in range(3)], axis=1)
    assert (drawn == np.rint(drawn)).all()
    assert (drawn.sum(axis=1) == 3).all()
    assert drawn.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)
    assert (weights > 1).any(axis=1).all()  # images are drawn with replacement too


def test_one_person_leaves_the_images_to_be_drawn():
    weights = resamples(np.zeros(50, dtype=np.int64), 200)[1:]
    assert (weights.sum(axis=1) == 50).all()
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.05)  # of a binomial with 50 draws


def test_the_seed_decides():
    assert np.array_equal(resamples(GROUPS, 5, seed=1), resamples(GROUPS, 5, seed=1))
    assert not np.array_equal(resamples(GROUPS, 5, seed=1), resamples(GROUPS, 5, seed=2))


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    weights = resamples(np.zeros(400, dtype=np.int64), 4000)
    found = estimate(weights @ values / weights.sum(axis=1), 400)
    expected = norm.interval(0.95, values.mean(), values.std() / 20)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(expected, abs=0.006)


def test_persons_that_differ_widen_the_interval():
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(8), 64)
    values = np.repeat(random.normal(size=8), 64) + random.normal(size=512)
    by_person, by_image = (resamples(g, 1000) for g in (groups, np.zeros_like(groups)))
    wide, narrow = (estimate(w @ values / w.sum(axis=1), 512) for w in (by_person, by_image))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_no_interval_where_most_resamples_are_undefined():
    values = np.array([0.5, *[np.nan] * 10, *[0.5] * 90])
    found = estimate(values, 7, missing=2)
    assert (found.mean, found.n, found.missing) == (0.5, 7, 2)
    assert np.isnan([found.low, found.high]).all()


def test_a_fold_counts_where_it_is_defined():
    folds = [np.array([1.0, np.nan, 2.0]), np.array([np.nan, np.nan, 1.0]), np.array([3.0, 3.0, 3.0])]
    every, second, none = Average(), Average(), Average()
    for each in folds:
        every.add(each)
    second.add(folds[1])
    assert every.mean(3) == pytest.approx([2, 3, 2])
    assert second.mean(3) == pytest.approx([np.nan, np.nan, 1], nan_ok=True)
    assert np.isnan(none.mean(3)).all()


def test_two_stages_err_to_the_wide_side():
    """Where persons make no difference, the interval is wider than it need be, never narrower."""
    random, groups = np.random.default_rng(0), np.repeat(np.arange(8), 64)
    widths = []
    for seed in range(40):
        values = random.normal(size=512)
        weights = resamples(groups, 200, seed)
        widths.append((weights[1:] @ values / weights[1:].sum(axis=1)).std())
    assert 1.1 < np.mean(widths) * np.sqrt(512) < 1.6
