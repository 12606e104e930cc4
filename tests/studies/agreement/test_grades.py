"""Grades are those of their definitions, and one who says nothing is seen through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finetune_monitor.studies.agreement.coefficients import grades, normalized, sample_scores, standardized, without

NONE = float("nan")
LABELS = arrays(
    np.float64, st.tuples(st.integers(3, 6), st.integers(2, 30)), elements=st.sampled_from([1, 2, 3, 4, 5, NONE])
)


def grade(own: np.ndarray, others: np.ndarray, power: float = 1.0) -> tuple[float, float]:
    """Raw and corrected."""
    raw, corrected = grades(own, others, np.ones((1, len(own))), power)
    return float(raw[0]), float(corrected[0])


def test_labels_become_scores_from_0_to_1():
    assert normalized(np.array([[1.0, 2, 3, 4, 5]])).tolist() == [[0, 0.25, 0.5, 0.75, 1]]


@settings(deadline=None)
@given(LABELS)
def test_standardized_scores_have_mean_0_and_deviation_1_unless_they_are_all_the_same(labels):
    z, flat = standardized(normalized(labels))
    assert np.array_equal(np.isnan(z), np.isnan(labels))
    for own, given_labels, same in zip(z, labels, flat, strict=True):
        present = own[~np.isnan(own)]
        assert same == (len(set(given_labels[~np.isnan(given_labels)])) < 2)
        if same:
            assert not present.any()
        else:
            assert present.mean() == pytest.approx(0, abs=1e-9)
            assert present.std() == pytest.approx(1)


def test_sample_scores_are_means_over_those_present():
    scores = np.array([[0.0, 1.0, NONE], [1.0, NONE, NONE], [0.5, 0.5, NONE]])
    assert sample_scores(scores) == pytest.approx([0.5, 0.75, NONE], nan_ok=True)
    assert without(scores, 0) == pytest.approx([0.75, NONE, NONE], nan_ok=True)
    assert without(scores, 1) == pytest.approx([0.25, 0.75, NONE], nan_ok=True)


@settings(deadline=None)
@given(LABELS, st.sampled_from([1.0, 2.0, 0.5]))
def test_grades_are_those_of_the_definition(labels, power):
    scores = normalized(labels)
    raw, corrected = grade(scores[0], without(scores, 0), power)
    pairs = [(x, y) for x, y in zip(scores[0], without(scores, 0), strict=True) if not np.isnan(x + y)]
    if not pairs:
        assert np.isnan(raw)
        return
    distance = np.mean([abs(x - y) ** power for x, y in pairs])
    chance = np.mean([abs(x - y) ** power for x, _ in pairs for _, y in pairs])
    assert raw == pytest.approx(1 - distance ** (1 / power))
    assert corrected == pytest.approx(1 - distance / chance if chance else NONE, nan_ok=True, abs=1e-9)


def test_with_power_2_the_corrected_grade_is_lins_concordance():
    random = np.random.default_rng(0)
    x = random.random(200)
    y = 0.7 * x + 0.3 * random.random(200)
    concordance = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert grade(x, y, 2.0)[1] == pytest.approx(concordance)
    assert grade(x, x, 2.0)[1] == pytest.approx(1)


def test_the_raw_grade_flatters_a_constant_and_the_corrected_one_does_not():
    random = np.random.default_rng(1)
    truth = random.integers(1, 6, 4000)
    people = np.clip(truth + random.integers(-1, 2, (5, 4000)), 1, 5).astype(float)
    scores = normalized(people)
    human = grade(scores[0], without(scores, 0))
    constant = grade(np.full(4000, 0.5), without(scores, 0))
    shuffled = grade(random.permutation(scores[0]), without(scores, 0))
    assert constant[0] > 0.7
    assert human[0] > constant[0]
    assert human[1] > 0.5
    assert constant[1] == pytest.approx(0, abs=1e-9)
    assert shuffled[1] == pytest.approx(0, abs=0.05)
