"""Intervals cover as often as they say: for either design of the grid, few photos, shares, ratios and differences."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from benchmarks.noise import normal, photos, scores, skewed
from finetune_monitor.stats.estimate import MISSING
from finetune_monitor.stats.intervals import (
    Spread,
    jackknife,
    ratio,
    share_change,
    share_of_way,
    smallest_change,
    spread,
    t_change,
    t_interval,
    wilson,
)

ROUNDS = 1500
"""Of a simulation; an interval that covers 95% is then found within 93.3 and 96.7% with a chance of 99.7%."""

DESIGNS = [(2, 4), (4, 4), (8, 8)]


@pytest.mark.slow
@pytest.mark.parametrize("is_crossed", [False, True], ids=["own seeds", "crossed seeds"])
@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize(("shape", "least"), [(normal, 0.93), (skewed, 0.89)], ids=["normal", "skewed"])
def test_the_interval_of_a_mean_covers(design, shape, least, is_crossed):
    rng, covered = np.random.default_rng(4), 0
    for _ in range(ROUNDS):
        values, draws = scores(rng, *design, shape=shape, is_crossed=is_crossed)
        found = t_interval(values, draws)
        covered += found.low <= 0 <= found.high
    assert least <= covered / ROUNDS <= 0.97


@pytest.mark.parametrize(("n", "share"), [(4, 0.76), (8, 0.83), (16, 0.92)])
def test_few_images_cover_less_where_some_fail_entirely(n, share):
    """As docs/concepts/intervals.md says: one in five scores 0.4 below the others."""
    rng, rounds = np.random.default_rng(11), 2000
    values = rng.normal(0.6, 0.05, size=(rounds, n)) - 0.4 * (rng.random((rounds, n)) < 0.2)
    found = [t_interval(row) for row in values]
    assert sum(each.low <= 0.52 <= each.high for each in found) / rounds == pytest.approx(share, abs=0.03)


def test_images_of_their_own_seeds_are_a_plain_sample():
    values = np.array([0.1, 0.4, 0.35, 0.8, 0.2])
    found = t_interval(values, np.arange(5))
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_shared_seeds_are_the_sample():
    values = np.random.default_rng(0).normal(size=(3, 4))
    means = values.mean(axis=0)
    found = t_interval(values.ravel(), np.tile(np.arange(4), 3))
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 3, means.mean(), stats.sem(means)))


def test_a_seed_of_which_nothing_was_measured_is_no_draw():
    found = spread(np.array([0.2, MISSING, 0.6, MISSING, MISSING]), np.array([0, 1, 2, 1, 2]))
    assert (found.mean, found.freedom) == (pytest.approx(0.4), 1)


@pytest.mark.parametrize("values", [[], [MISSING], [0.3], [0.3, MISSING]])
def test_fewer_than_two_draws_give_no_interval(values):
    found = t_interval(np.array(values, dtype=float))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert (found.n, found.missing) == (sum(v == v for v in values), sum(v != v for v in values))


@pytest.mark.parametrize("values", [[0.9] * 2, [0.9, 0.9, MISSING, MISSING], [0.1 + 0.2, 0.3], [0.0] * 5])
def test_fewer_than_six_equal_values_give_no_interval(values):
    found = t_interval(np.array(values))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_six_equal_values_are_their_own_interval_but_images_of_five_seeds_are_not():
    found = t_interval(np.array([0.9] * 6))
    assert (found.low, found.high) == (found.mean, found.mean) == pytest.approx((0.9, 0.9))
    assert math.isnan(t_interval(np.full(10, 0.9), np.arange(10) % 5).low)


def test_six_equal_draws_cover_their_median_and_five_do_not():
    """The range of n draws misses the median if all are on one side of it."""
    assert 2 * 0.5**6 <= 0.05 < 2 * 0.5**5


def test_a_change_of_exactly_0_in_every_image_is_known_and_an_equal_one_is_not():
    none, equal = t_change(np.zeros(2)), t_change(np.full(2, 0.2))
    assert (none.mean, none.low, none.high) == (0.0, 0.0, 0.0)
    assert equal.mean == pytest.approx(0.2)
    assert math.isnan(equal.low)
    assert math.isnan(t_change(np.zeros(1)).low)


def test_equal_images_have_a_ratio_of_exactly_1():
    values = np.array([0.3, 0.2, 0.25, 0.31])
    found = ratio(values, values, np.arange(4))
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 6, 10, 20])
@pytest.mark.parametrize("shape", [normal, skewed], ids=["normal", "skewed"])
def test_the_interval_of_the_ceiling_covers_with_few_photos(count, shape):
    rng, covered, rounds = np.random.default_rng(5), 0, 700
    for _ in range(rounds):
        of_pairs, truth = photos(rng, count, shape)
        found = jackknife(of_pairs, count).interval(count)
        covered += found.low <= truth <= found.high
    assert (0.925 if shape is normal else 0.89) <= covered / rounds <= 0.98


def test_two_photos_have_a_ceiling_without_an_interval():
    found = jackknife(lambda chosen: 0.8, 2).interval(2)
    assert found.mean == 0.8
    assert math.isnan(found.low)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.array([0.3, 0.1, 0.7, 0.4])
    found = jackknife(lambda chosen: float(values[list(chosen)].mean()), 4)
    assert (found.mean, found.error, found.freedom) == (pytest.approx(0.375), pytest.approx(stats.sem(values)), 3)


@pytest.mark.parametrize(("hits", "n"), [(0, 8), (3, 8), (8, 8), (1, 2), (60, 64)])
def test_a_share_has_the_interval_of_wilson(hits, n):
    found = wilson(np.array([1.0] * hits + [0.0] * (n - hits)))
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert (found.mean, found.low, found.high) == pytest.approx((hits / n, expected.low, expected.high), abs=1e-12)


CROSSED = [(2, 8), (4, 8), (4, 2), (8, 8)]
"""Seeds that all prompts share, and prompts."""


def thresholds(rng, seeds: int, prompts: int, related: float) -> np.ndarray:
    """For each image, a normal number; two images of one seed have the correlation `related`."""
    of_seed, own = rng.normal(size=(1, seeds)), rng.normal(size=(prompts, seeds))
    return (math.sqrt(related) * of_seed + math.sqrt(1 - related) * own).ravel()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_share_is_covered(share):
    rng, covered = np.random.default_rng(6), 0
    for _ in range(ROUNDS):
        found = wilson((rng.random(32) < share).astype(float))
        covered += found.low <= share <= found.high
    assert 0.91 <= covered / ROUNDS <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("design", CROSSED, ids=str)
def test_a_share_is_covered_where_seeds_decide_whether_there_is_a_face(design, share):
    rng, rounds = np.random.default_rng(6), ROUNDS // 3
    seeds, prompts = design
    for related in (0.0, 0.3, 0.7):
        covered = 0
        for _ in range(rounds):
            values = (thresholds(rng, *design, related) < stats.norm.ppf(share)).astype(float)
            found = wilson(values, np.tile(np.arange(seeds), prompts))
            covered += found.low <= share <= found.high
        assert covered / rounds >= 0.91, related


PAIRS = [(0.05, 0.95), (0.02, 0.98), (0.1, 0.9), (0.0, 0.05), (0.9, 0.97), (0.3, 0.6), (0.5, 0.5), (0.8, 1.0)]
"""Shares of images at two steps."""


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_the_change_of_a_share_is_covered(n):
    """Exactly: over all numbers of images that rise, fall, and stay, with independent and with related steps."""
    tables = [(rise, fall) for rise, fall in product(range(n + 1), repeat=2) if rise + fall <= n]
    found = [share_change(np.repeat([1.0, -1.0, 0.0], [rise, fall, n - rise - fall])) for rise, fall in tables]
    rows = [[rise, fall, n - rise - fall] for rise, fall in tables]
    assert min(each.high - each.low for each in found) > 0.1
    for (first, second), related in product(PAIRS, [0.0, 0.5]):
        both = first * second + related * math.sqrt(first * (1 - first) * second * (1 - second))
        both = min(both, first, second)
        chances = stats.multinomial.pmf(rows, n, [second - both, first - both, 1 - first - second + 2 * both])
        covers = [each.low <= second - first <= each.high for each in found]
        assert chances[covers].sum() >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(0.1, 0.5), (0.5, 0.5), (0.2, 0.9)], ids=str)
@pytest.mark.parametrize("design", CROSSED, ids=str)
def test_the_change_of_a_share_is_covered_where_seeds_decide_it(design, shares):
    """Half of what is the image's own is common to both steps."""
    rng, rounds = np.random.default_rng(10), ROUNDS // 3
    seeds, prompts = design
    levels = stats.norm.ppf(shares)
    for related in (0.0, 0.3, 0.7):
        covered, own = 0, math.sqrt((1 - related) / 2)
        for _ in range(rounds):
            common = thresholds(rng, *design, 2 * related / (1 + related)) * math.sqrt((1 + related) / 2)
            first, second = (common + own * rng.normal(size=seeds * prompts) < level for level in levels)
            found = share_change(second.astype(float) - first, np.tile(np.arange(seeds), prompts))
            covered += found.low <= shares[1] - shares[0] <= found.high
        assert covered / rounds >= 0.91, related


def test_the_change_of_a_share_by_hand():
    found = share_change(np.array([1.0] * 5 + [-1.0] + [0.0] * 4 + [MISSING]))
    rise, fall = 6 / 12, 2 / 12
    half = stats.norm.ppf(0.975) * math.sqrt((rise + fall - (rise - fall) ** 2) / 12)
    assert (found.mean, found.n, found.missing) == (0.4, 10, 1)
    assert (found.low, found.high) == pytest.approx((rise - fall - half, rise - fall + half))


def test_two_changes_of_a_share_may_be_chance_and_one_seed_says_nothing():
    assert share_change(np.ones(2)).low < 0
    assert math.isnan(share_change(np.ones(8), np.zeros(8, dtype=int)).low)


def test_images_of_shared_seeds_that_all_agree_count_as_one_each():
    shared = share_change(np.ones(12), np.arange(12) % 4)
    alone = share_change(np.ones(4))
    assert (shared.low, shared.high) == pytest.approx((alone.low, alone.high))


def test_a_share_of_images_of_shared_seeds_by_hand():
    values, draws = np.array([1, 1, 0, 1, 0, 1, 1, 0.0]), np.tile(np.arange(4), 2)
    effect = 4 / 3 * np.square([-0.25, 0.75, -0.25, -0.25]).sum() / (8 / 7 * 8 * 0.625 * 0.375)
    size = 8 / max(effect, 1) * (stats.t.ppf(0.975, 7) / stats.t.ppf(0.975, 3)) ** 2
    z = stats.norm.ppf(0.975)
    found = wilson(values, draws)
    half = z / (1 + z**2 / size) * math.sqrt(0.625 * 0.375 / size + z**2 / (4 * size**2))
    assert size > 4
    assert found.high - found.low == pytest.approx(2 * half)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
def test_the_share_of_the_way_is_covered(share):
    rng, covered = np.random.default_rng(7), 0
    floor, ceiling = 0.05, 0.8
    for _ in range(ROUNDS):
        noise, draws = scores(rng, 4, 4)
        floors = floor + 0.3 * noise + 0.03 * rng.normal(size=16)
        reached = floor + share * (ceiling - floor) + noise
        found_ceiling = Spread.of(t_interval(ceiling + 0.06 * rng.normal(size=6)))
        found = share_of_way(reached, floors, draws, found_ceiling)
        covered += found.low <= share <= found.high
    assert 0.93 <= covered / ROUNDS <= 0.975


def test_no_way_is_claimed_where_photos_and_base_model_score_alike():
    floors, draws = np.linspace(0.4, 0.6, 8), np.arange(8)
    assert math.isnan(share_of_way(floors + 0.1, floors, draws, Spread(0.52, 0.03, 4)).mean)
    assert math.isnan(share_of_way(floors, floors, draws, Spread(0.9, MISSING, 0)).mean)
    assert share_of_way(floors + 0.2, floors, draws, Spread(0.9, 0.03, 4)).mean == pytest.approx(0.5)


def test_the_error_of_an_estimate_is_had_back_from_its_interval_even_where_a_bound_has_cut_it():
    values = np.array([0.9, 0.99, 1.0, 0.7])
    cut = t_interval(values, bounds=(-1.0, 1.0))
    assert cut.high == 1.0
    assert Spread.of(cut).error == pytest.approx(stats.sem(values))


def test_the_smallest_change_is_found_four_times_of_five():
    rng, rounds, n = np.random.default_rng(9), 2000, 16
    change = smallest_change(0.19, n, n - 1)
    found = [t_interval(change + 0.19 * rng.normal(size=n)) for _ in range(rounds)]
    assert 0.77 <= sum(each.low > 0 for each in found) / rounds <= 0.83
