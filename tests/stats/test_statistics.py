"""Correlations and errors as SciPy gives them, intervals that cover the truth, bins with clear edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from finetune_monitor.stats import resampling
from finetune_monitor.stats.statistics import Bin, binned, interval, mae, mean, plcc, ranks, srcc

NAN = float("nan")
RNG = np.random.default_rng(3)
CONTINUOUS = RNG.normal(size=(2, 200))
TIED = RNG.integers(0, 5, size=(2, 200)).astype(float)


@pytest.mark.parametrize(("x", "y"), [CONTINUOUS, TIED, (CONTINUOUS[0], TIED[0]), (np.arange(2.0), np.array([4.0, 1]))])
def test_correlations_are_those_of_scipy(x, y):
    assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert plcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


@given(
    arrays(
        float, st.tuples(st.integers(0, 3), st.integers(0, 9)), elements=st.sampled_from([-1.5, 0.0, 1e-9, 2.0, 7.0])
    )
)
def test_ranks_are_those_of_scipy(x):
    np.testing.assert_array_equal(ranks(x), stats.rankdata(x, axis=-1).reshape(x.shape))


def test_a_monotonous_curve_is_a_perfect_rank_correlation_and_no_perfect_line():
    x = np.linspace(0.1, 1, 20)
    assert srcc(x, x**5) == pytest.approx(1)
    assert srcc(x, -(x**5)) == pytest.approx(-1)
    assert plcc(x, x**5) < 0.95


def test_mae_is_the_mean_distance():
    assert mae(np.array([1.0, 2.0, 5.0]), np.array([2.0, 2.0, 3.0])) == 1.0


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.1] * 7, list(range(7))),  # a constant whose mean is not exactly itself
        (list(range(7)), [0.1] * 7),
        ([1.0], [2.0]),
        ([], []),
        ([1.0, NAN, 3.0], [1.0, 2.0, 3.0]),
        ([0.0, 5e-324], [0.0, 1.0]),
    ],
)
def test_a_correlation_that_is_undefined_is_nan(x, y):
    x, y = np.array(x, dtype=float), np.array(y, dtype=float)
    assert math.isnan(plcc(x, y))
    if 5e-324 not in x:
        assert math.isnan(srcc(x, y))


def test_errors_of_nothing_and_of_missing_values_are_nan():
    assert math.isnan(mae(np.array([]), np.array([])))
    assert math.isnan(mae(np.array([NAN]), np.array([1.0])))


@pytest.mark.parametrize("statistic", [srcc, plcc, mae])
def test_rows_are_what_each_row_is_alone(statistic):
    x, y = RNG.integers(0, 4, size=(2, 6, 9)).astype(float)
    x[2] = 1
    alone = [statistic(*row) for row in zip(x, y, strict=True)]
    np.testing.assert_allclose(statistic(x, y), alone)


def test_the_interval_is_that_of_a_plain_loop(monkeypatch):
    x, y = TIED[:, :40]
    monkeypatch.setattr(resampling, "CHUNK", 40 * 7)  # several chunks, the last one shorter
    found = interval(srcc, x, y, rounds=50)
    generator = np.random.default_rng(0)
    draws = np.concatenate([generator.integers(0, 40, size=(min(7, 50 - start), 40)) for start in range(0, 50, 7)])
    loop = [stats.spearmanr(x[row], y[row]).statistic for row in draws]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(loop, [0.025, 0.975])))
    assert (found.mean, found.n, found.missing) == (pytest.approx(stats.spearmanr(x, y).statistic), 40, 0)


def test_a_reported_correlation_takes_the_same_resamples_as_ever():
    x, y = np.array([0.1, 0.2, 0.4, 0.8, 0.3, 0.9]), np.array([1.0, 2, 2, 4, 1, 3])
    found = interval(plcc, x, y)
    expected = (0.8629601675285047, 0.1740776559556979, 0.9937387677856532)
    assert (found.mean, found.low, found.high) == pytest.approx(expected, abs=1e-14)


def test_pairs_stay_together_when_they_are_resampled():
    x = CONTINUOUS[0]
    found = interval(mae, x, x + np.linspace(1, 1.01, len(x)))
    assert 1 <= found.low < found.mean < found.high <= 1.01


@pytest.mark.parametrize("statistic", [plcc, srcc, mae])
def test_resamples_that_are_all_equal_are_no_interval(statistic):
    x = np.arange(5.0)
    found = interval(statistic, x, x + 1)
    assert found.mean == pytest.approx(1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_an_interval_is_the_same_every_time_and_another_with_another_seed():
    x, y = CONTINUOUS
    assert interval(plcc, x, y) == interval(plcc, x, y)
    assert interval(plcc, x, y) != interval(plcc, x, y, seed=1)


def test_a_lower_level_gives_a_narrower_interval():
    wide, narrow = (interval(mean, CONTINUOUS[0], level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.slow
@pytest.mark.parametrize(("statistic", "truth"), [(plcc, 0.6), (srcc, 6 / np.pi * np.arcsin(0.3))])
def test_intervals_of_correlations_cover_the_truth_about_as_often_as_they_say(statistic, truth):
    """The rank correlation of a binormal pair: Kruskal 1958."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        x, noise = rng.normal(size=(2, 60))
        found = interval(statistic, x, 0.6 * x + 0.8 * noise, rounds=300)
        hits += found.low <= truth <= found.high
    assert 0.88 <= hits / 200 <= 0.985


def test_missing_images_are_counted_and_left_out_as_pairs():
    x, y = np.array([1.0, NAN, 3.0, 4.0]), np.array([1.0, 50.0, NAN, 5.0])
    found = interval(mae, x, y)
    assert (found.mean, found.n, found.missing) == (0.5, 2, 2)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1.0, 2.0], [1.0, 2.0]),  # half of the resamples are one image twice
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0] * 9 + [2.0], [1.0] * 9 + [2.0]),
    ],
)
def test_a_correlation_that_many_resamples_leave_undefined_has_no_interval(x, y):
    found = interval(srcc, np.array(x), np.array(y))
    assert found.mean == pytest.approx(1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_nothing_and_one_image_have_no_interval():
    nothing, one = interval(mean, np.array([NAN])), interval(mean, np.array([2.0]))
    assert (nothing.n, nothing.missing, one.n, one.mean) == (0, 1, 1, 2.0)
    assert all(math.isnan(value) for value in (nothing.mean, nothing.low, one.low, one.high))


def places(bins: list[Bin]) -> dict[tuple[float, float], int]:
    return {(b.low, b.high): b.n for b in bins}


def test_an_edge_belongs_to_the_bin_above_and_the_last_one_to_the_bin_below():
    by = np.array([0.0, 0.5, 1.0, 2.0])
    assert places(binned(by, by, np.array([0.0, 1.0, 2.0]))) == {(0, 1): 2, (1, 2): 2}


def test_what_lies_beyond_the_edges_goes_into_the_outermost_bins():
    by = np.array([-7.0, 0.5, 1.5, 99.0])
    found = binned(by, by, np.array([0.0, 1.0, 2.0]))
    assert places(found) == {(0, 1): 2, (1, 2): 2}
    assert [b.middle for b in found] == [-3.25, 50.25]


def test_empty_bins_and_images_without_a_place_are_left_out():
    by = np.array([0.5, NAN, 2.5])
    assert places(binned(np.ones(3), by, np.arange(4.0))) == {(0, 1): 1, (2, 3): 1}
    assert binned(np.ones(1), np.array([NAN]), np.arange(4.0)) == []


def test_a_bin_has_the_mean_and_the_interval_of_its_values():
    values, by = np.array([1.0, 2.0, 6.0, NAN, 9.0]), np.array([0.1, 0.2, 0.3, 0.4, 1.5])
    first, second = binned(values, by, np.arange(3.0))
    assert first.estimate == interval(mean, values[:4])
    assert (first.n, first.estimate.n, first.estimate.missing, first.estimate.mean) == (4, 3, 1, 3.0)
    assert first.middle == pytest.approx(0.25)
    assert second.estimate.mean == 9.0
    assert math.isnan(second.estimate.low)


@settings(max_examples=30)
@given(arrays(float, st.integers(1, 40), elements=st.floats(-3, 13)))
def test_every_image_is_in_one_bin(by):
    found = binned(by, by, np.linspace(0, 10, 21))
    assert sum(b.n for b in found) == len(by)
    assert sum(b.n * b.estimate.mean for b in found) == pytest.approx(by.sum(), abs=1e-9)
