"""Buckets are as good as the best that trying all of them finds, on the same images or on those of other folds."""

import csv
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from finetune_monitor.studies.agreement.coefficients import normalized, without
from finetune_monitor.studies.agreement.star_fitting import (
    clean_stars,
    fit_buckets,
    fold_groups,
    match_marginals,
    naive_stars,
)
from support import needs
from support.places import SHARED

REAL = SHARED / "ratings"
NONE = float("nan")
LABEL = st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, NONE])
SAMPLES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.3, 1.0, 2.0, -3.0, 7.0]), LABEL, LABEL), min_size=1, max_size=25
)


def brute_force(scores: np.ndarray, labels: np.ndarray, power: float) -> float:
    """The least cost of all ways to give the distinct scores steps that never fall."""
    used = ~np.isnan(labels).all(axis=0)
    values = np.unique(scores[used])
    cost = {
        (value, step): np.nansum(np.abs(step - labels[:, used & (scores == value)]) ** power)
        for value in values
        for step in range(1, 6)
    }
    ways = combinations_with_replacement(range(1, 6), len(values))
    return min(sum(cost[pair] for pair in zip(values, steps, strict=True)) for steps in ways)


def cost_of(steps: np.ndarray, labels: np.ndarray, power: float) -> float:
    return float(np.nansum(np.abs(steps - labels) ** power))


@settings(deadline=None, max_examples=200)
@given(SAMPLES, st.sampled_from([1.0, 2.0]))
def test_no_other_buckets_cost_less(samples, power):
    scores, *labels = (np.array(column) for column in zip(*samples, strict=True))
    labels = np.stack(labels)
    if np.isnan(labels).all():
        with pytest.raises(ValueError, match="no sample"):
            fit_buckets(scores, labels, power)
        return
    found = fit_buckets(scores, labels, power)
    assert found.cost == pytest.approx(brute_force(scores, labels, power))
    assert cost_of(found.steps(scores), labels, power) == pytest.approx(found.cost)
    assert (found.thresholds[1:] >= found.thresholds[:-1]).all()


def test_thresholds_lie_half_way_between_neighboring_scores():
    scores = np.array([0.1, 0.2, 0.4, 0.5, 0.9, NONE])
    labels = np.array([[1.0, 1, 3, 3, 5, 1]])
    found = fit_buckets(scores, labels)
    assert found.cost == 0
    assert found.steps(scores) == pytest.approx([1, 1, 3, 3, 5, NONE], nan_ok=True)
    assert sorted({round(threshold, 6) for threshold in found.thresholds}) == [0.3, 0.7]


@pytest.mark.parametrize(("label", "thresholds"), [(1.0, [np.inf] * 4), (5.0, [-np.inf] * 4)])
def test_steps_that_nobody_gives_are_empty(label, thresholds):
    found = fit_buckets(np.array([0.1, 0.2]), np.full((3, 2), label))
    assert found.thresholds.tolist() == thresholds
    assert found.steps(np.array([-9.0, 0.1, 9.0])).tolist() == [label] * 3


def test_least_cost_squeezes_the_extremes_and_matched_marginals_do_not():
    random = np.random.default_rng(0)
    truth = random.normal(size=4000)
    people = np.clip(np.rint(3 + 1.2 * (truth + 0.5 * random.normal(size=(5, 4000)))), 1, 5)
    scores = truth + random.normal(size=4000)
    least, matched = fit_buckets(scores, people), match_marginals(scores, people)
    outer = np.isin(people, (1, 5)).mean()
    shares = [np.isin(found.steps(scores), (1, 5)).mean() for found in (least, matched)]
    assert least.cost < matched.cost
    assert shares[0] < 0.7 * outer
    assert shares[1] == pytest.approx(outer, abs=0.01)
    assert cost_of(matched.steps(scores), people, 1.0) == pytest.approx(matched.cost)


def test_matched_marginals_keep_equal_scores_together():
    found = match_marginals(np.array([1.0, 1, 1, 2, 2]), np.array([[3.0, 1, 1, 3, 1]]))
    assert found.steps(np.array([1.0, 2.0])).tolist() == [1, 3]


def test_neighboring_numbers_are_told_apart():
    scores = np.array([1.0, np.nextafter(1.0, 2.0)])
    found = fit_buckets(scores, np.array([[1.0, 5.0]] * 3))
    assert found.steps(scores).tolist() == [1, 5]
    huge = np.array([-1.7e308, 1.7e308])
    assert fit_buckets(huge, np.array([[1.0, 5.0]])).steps(huge).tolist() == [1, 5]


def test_matched_marginals_count_the_labels_of_what_has_a_score():
    scores = np.array([1.0, 2.0, 3.0, 4.0, *[NONE] * 6])
    labels = np.array([[2.0, 3, 4, 5, *[1.0] * 6]])
    assert match_marginals(scores, labels).steps(scores[:4]).tolist() == [2, 3, 4, 5]


def test_a_hundred_thousand_samples_are_cut_at_the_known_places():
    random = np.random.default_rng(0)
    scores = random.random(100_000)
    labels = np.stack([1 + np.searchsorted([0.1, 0.3, 0.6, 0.9], scores)] * 5).astype(float)
    assert fit_buckets(scores, labels).thresholds == pytest.approx([0.1, 0.3, 0.6, 0.9], abs=1e-3)


# --- real ratings -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """NIMA's scores of 146 images, and the appeal that 27 raters saw in them; the last of two ratings counts."""
    with (REAL / "avt_2022_per_rater.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["question"] == "image_appeal"]
    with (REAL / "avt_2022_nima.csv").open(newline="") as file:
        nima = {row["image"]: float(row["nima"]) for row in csv.DictReader(file)}
    images, raters = (
        {name: i for i, name in enumerate(sorted({row[key] for row in rows}))} for key in ("image", "rater")
    )
    labels = np.full((len(raters), len(images)), NONE)
    for row in rows:
        labels[raters[row["rater"]], images[row["image"]]] = float(row["rating"])
    return np.array([nima[name] for name in images]), labels


@needs.shared("ratings")
def test_each_rater_against_the_others(real):
    _, labels = real
    scores = normalized(labels)
    found = [spearmanr(scores[e], without(scores, e), nan_policy="omit").statistic for e in range(len(scores))]
    assert np.mean(found) == pytest.approx(0.58, abs=0.005)


@needs.shared("ratings")
def test_nima_in_buckets_against_the_rater_left_out(real):
    nima, labels = real
    labels = labels[(~np.isnan(labels)).sum(axis=1) >= 140]
    assert len(labels) == 22
    model, constant, others_rounded = [], [], []
    for rater, own in enumerate(labels):
        others = np.delete(labels, rater, axis=0)
        model.append(np.nanmean(np.abs(fit_buckets(nima, others).steps(nima) - own)))
        constant.append(np.nanmean(np.abs(np.nanmedian(others) - own)))
        others_rounded.append(np.nanmean(np.abs(np.rint(np.nanmean(others, axis=0)) - own)))
    assert np.mean(model) == pytest.approx(1.13, abs=0.005)
    assert np.mean(constant) == pytest.approx(1.18, abs=0.005)
    assert np.mean(others_rounded) == pytest.approx(0.95, abs=0.005)  # as it is, not rounded, 0.98


# --- folds --------------------------------------------------------------------------------------------------------


def error(stars: np.ndarray, labels: np.ndarray) -> float:
    return float(np.abs(stars - labels).mean())


def test_the_naive_fold_grades_a_model_that_memorized_persons_too_high_and_the_clean_one_does_not():
    """The model knows who is shown and nothing else; each person's images are rated alike."""
    person = np.repeat(np.arange(5), 20)
    labels = np.stack([person + 1.0] * 4)
    scores = person + 0.001 * np.random.default_rng(0).random(100)
    assert error(naive_stars(scores, labels, fit_buckets), labels) == 0
    assert error(clean_stars(scores, labels, person, fit_buckets), labels) == pytest.approx(1, abs=0.05)


def test_the_naive_fold_finds_agreement_in_noise_and_the_clean_one_does_not():
    """Few images, a score that means nothing: thresholds fitted to the very images bring it nearer than a constant."""
    gains = {"naive": [], "clean": []}
    for seed in range(40):
        random = np.random.default_rng(seed)
        groups, scores = np.repeat(np.arange(4), 3), random.random(12)
        labels = np.stack([random.integers(1, 6, 12).astype(float)] * 3)  # of one mind, so that all fits are alike
        for name, stars, constant in (
            ("naive", naive_stars(scores, labels, fit_buckets), naive_stars(np.zeros(12), labels, fit_buckets)),
            ("clean", *(clean_stars(s, labels, groups, fit_buckets) for s in (scores, np.zeros(12)))),
        ):
            gains[name].append(error(constant, labels) - error(stars, labels))
    assert np.mean(gains["naive"]) > 0.15
    assert np.mean(gains["clean"]) < 0


def test_stars_of_a_seat_know_neither_the_labeler_nor_the_person_held_out():
    random = np.random.default_rng(0)
    groups, scores = np.repeat(np.arange(3), 10), random.random(30)
    labels = random.integers(1, 6, (3, 30)).astype(float)
    stars = clean_stars(scores, labels, groups, fit_buckets)
    for labeler in range(3):
        for group in range(3):
            others, changed = np.arange(3) != labeler, labels.copy()
            changed[labeler] = random.integers(1, 6, 30)
            changed[:, groups == group] = random.integers(1, 6, (3, 10))
            again = clean_stars(scores, changed, groups, fit_buckets)
            assert np.array_equal(again[labeler, groups == group], stars[labeler, groups == group])
            train = groups != group
            fitted = fit_buckets(scores[train], labels[others][:, train])
            assert np.array_equal(stars[labeler, ~train], fitted.steps(scores[~train]))


def test_matched_marginals_may_be_cross_validated_too():
    random = np.random.default_rng(0)
    scores = random.random(400)
    labels = np.stack([1.0 + np.searchsorted([0.1, 0.3, 0.6, 0.9], scores)] * 3)
    stars = clean_stars(scores, labels, np.arange(400) % 4, match_marginals)
    assert error(stars, labels) < 0.05


def test_an_image_without_a_score_and_a_fold_without_training_images_have_no_stars():
    labels = np.full((3, 4), 2.0)
    labels[:, 2:] = np.nan
    scores = np.array([0.1, np.nan, 0.3, 0.4])
    stars = clean_stars(scores, labels, np.array([0, 0, 1, 1]), fit_buckets)
    assert np.isnan(stars[:, :2]).all()  # nobody rated the other group
    assert (stars[:, 2:] == 2).all()
    assert np.isnan(naive_stars(scores, labels, fit_buckets)[:, 1]).all()


def test_names_are_the_groups_and_blocks_stand_in_for_them():
    assert fold_groups(("b", "a", "b"), 3).tolist() == [1, 0, 1]
    blocks = fold_groups(None, 23, seed=3)
    assert sorted(np.bincount(blocks)) == [4, 4, 5, 5, 5]
    assert np.array_equal(blocks, fold_groups(None, 23, seed=3))
    assert not np.array_equal(blocks, fold_groups(None, 23, seed=4))
