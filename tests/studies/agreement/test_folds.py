"""Folds hold out what they say they hold out; what leaks in the naive ones does not in the clean ones."""

import numpy as np
import pytest

from finetune_monitor.studies.agreement.star_fitting import (
    clean_stars,
    fit_buckets,
    fold_groups,
    match_marginals,
    naive_stars,
)


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
