"""Coefficients and grades under weights are those of their definitions, and one who says nothing is seen through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from finetune_monitor.studies.agreement import coefficients
from finetune_monitor.studies.agreement.coefficients import (
    alpha,
    confusion,
    exact,
    grades,
    kappa,
    kendall,
    mae,
    normalized,
    pearson,
    sample_scores,
    spearman,
    standardized,
    within,
    within_one,
    without,
)

NONE = float("nan")
LABELS = st.sampled_from([1.0, 2, 3, 4, 5])
RATED = arrays(
    np.float64, st.tuples(st.integers(3, 6), st.integers(2, 30)), elements=st.sampled_from([1, 2, 3, 4, 5, NONE])
)


def usual(name: str, x: np.ndarray, y: np.ndarray) -> float:
    """The coefficient as SciPy and scikit-learn have it; NaN where it is not defined."""
    if not len(x):
        return NONE
    if name == "kappa":
        return cohen_kappa_score(x, y, weights="quadratic", labels=[1, 2, 3, 4, 5]) if spread([*x, *y]) else NONE
    if name in ("spearman", "pearson", "kendall"):
        named = {"spearman": stats.spearmanr, "pearson": stats.pearsonr, "kendall": stats.kendalltau}[name]
        return named(x, y).statistic if spread(x) and spread(y) else NONE
    return {"mae": np.abs(x - y), "exact": x == y, "within_one": np.abs(x - y) <= 1}[name].mean()


def spread(x: np.ndarray) -> bool:
    return len(set(x)) > 1


COEFFICIENTS = {
    "spearman": spearman,
    "pearson": pearson,
    "kendall": kendall,
    "mae": mae,
    "exact": exact,
    "within_one": within_one,
    "kappa": kappa,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # scikit-learn divides by zero where there is one label
@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(2, 12), st.sampled_from(list(COEFFICIENTS)))
def test_each_is_the_usual_one_of_the_images_drawn(data, n, name):
    series = st.lists(st.one_of(LABELS, st.just(NONE)), min_size=n, max_size=n)
    x, y = (np.array(data.draw(series), dtype=float) for _ in range(2))
    weights = np.array(data.draw(st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1, max_size=4)))
    both = ~np.isnan(x) & ~np.isnan(y)
    expected = [usual(name, np.repeat(x[both], w[both]), np.repeat(y[both], w[both])) for w in weights]
    found = COEFFICIENTS[name](x, y, weights.astype(float))
    assert found == pytest.approx(expected, nan_ok=True, abs=1e-9)


@pytest.mark.parametrize("name", ["spearman", "pearson", "kendall"])
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_correlations_of_a_continuous_score_do_not_depend_on_its_unit(name, unit):
    random = np.random.default_rng(0)
    labels = random.integers(1, 6, 300).astype(float)
    scores = labels + random.normal(size=300)
    found = COEFFICIENTS[name](unit * (scores + 5), labels, np.ones((1, 300)))
    assert found[0] == pytest.approx(usual(name, scores, labels))


def test_an_outlier_that_is_not_drawn_takes_no_value_away():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 100))
    x[0] = 1e7
    found = pearson(x, y, np.stack([np.ones(100), np.where(np.arange(100), 1.0, 0.0)]))
    expected = [stats.pearsonr(x, y).statistic, stats.pearsonr(x[1:], y[1:]).statistic]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 700])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_kendall_counts_pairs_with_ties_in_either(n, levels):
    random = np.random.default_rng(n + levels)
    x, y = random.integers(0, levels, (2, n)).astype(float)
    weights = random.integers(0, 3, (3, n)).astype(float)
    drawn = [(np.repeat(x, w), np.repeat(y, w)) for w in weights.astype(int)]
    expected = [stats.kendalltau(*each).statistic if all(map(spread, each)) else NONE for each in drawn]
    assert kendall(x, y, weights) == pytest.approx(expected, nan_ok=True)


def test_kendall_of_very_many_images_has_an_interval():
    """Twenty thousand would need a matrix of all pairs of 3 GB; here, memory is bounded."""
    random = np.random.default_rng(0)
    x = random.normal(size=20_000)
    y = np.round(x + random.normal(size=len(x)))
    weights = random.integers(0, 3, (3, len(x))).astype(float)
    found = kendall(x, y, weights)
    expected = [stats.kendalltau(np.repeat(x, w), np.repeat(y, w)).statistic for w in weights.astype(int)]
    assert found == pytest.approx(expected)


def test_rounds_beyond_those_in_memory_at_a_time_are_measured_too(monkeypatch):
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, 50))
    weights = random.integers(0, 3, (5, 50)).astype(float)
    whole = kendall(x, y, weights)
    monkeypatch.setattr(coefficients, "AT_ONCE", 100)
    assert kendall(x, y, weights) == pytest.approx(whole)


def test_a_confusion_matrix_counts_labels_against_labels():
    x, y = np.array([1.0, 1, 5, NONE, 2]), np.array([1.0, 2, 5, 3, NONE])
    (found,) = confusion(x, y, np.array([[1.0, 2, 3, 4, 5]]))
    assert {(i + 1, j + 1): found[i, j] for i, j in zip(*found.nonzero(), strict=True)} == {
        (1, 1): 1,
        (1, 2): 2,
        (5, 5): 3,
    }


def test_alpha_of_the_published_example():
    """Krippendorff 2011, Computing Krippendorff's Alpha-Reliability: four observers, twelve units, ordinal .815."""
    rows = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    labels = np.array([[NONE if char == "." else float(char) for char in row] for row in rows])
    assert alpha(labels, np.ones((1, 12)))[0] == pytest.approx(0.815, abs=0.0005)


@settings(deadline=None, max_examples=50)
@given(st.data(), st.integers(2, 5), st.integers(2, 8))
def test_alpha_under_weights_is_that_of_the_images_drawn(data, labelers, n):
    cells = st.lists(st.one_of(LABELS, st.just(NONE)), min_size=labelers * n, max_size=labelers * n)
    labels = np.array(data.draw(cells), dtype=float).reshape(labelers, n)
    drawn = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    repeated = np.repeat(labels, drawn, axis=1)
    (expected,) = alpha(repeated, np.ones((1, repeated.shape[1])))
    assert alpha(labels, drawn[None].astype(float))[0] == pytest.approx(expected, nan_ok=True)


def test_alpha_is_0_for_chance_and_1_for_agreement():
    labels = np.random.default_rng(0).integers(1, 6, (5, 4000)).astype(float)
    assert alpha(labels, np.ones((1, 4000)))[0] == pytest.approx(0, abs=0.02)
    assert alpha(np.stack([labels[0]] * 3), np.ones((1, 4000)))[0] == pytest.approx(1)


def test_within_a_person_differences_between_persons_do_not_count():
    random = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 200)
    level = 10.0 * groups
    x, y = level + random.normal(size=(2, 600))
    ones = np.ones((1, 600))
    assert spearman(x, y, ones)[0] > 0.8
    assert within(spearman, groups)(x, y, ones)[0] == pytest.approx(0, abs=0.1)
    each = [stats.spearmanr(x[groups == g], y[groups == g]).statistic for g in range(3)]
    assert within(spearman, groups)(x, y, ones)[0] == pytest.approx(np.mean(each))


def test_a_person_who_is_not_drawn_or_has_no_spread_is_left_out_of_the_mean():
    groups = np.array([0, 0, 0, 1, 1, 1])
    x, y = np.array([1.0, 2, 3, 5, 5, 5]), np.array([1.0, 2, 3, 1, 2, 3])
    weights = np.array([[1.0] * 6, [0.0] * 3 + [1.0] * 3])
    assert within(pearson, groups)(x, y, weights) == pytest.approx([1.0, NONE], nan_ok=True)


def test_nothing_in_common_is_undefined_everywhere():
    x, y, weights = np.array([1.0, NONE]), np.array([NONE, 2.0]), np.ones((3, 2))
    for coefficient in COEFFICIENTS.values():
        assert np.isnan(coefficient(x, y, weights)).all()
    assert np.isnan(grades(x, y, weights)[1]).all()


@settings(deadline=None)
@given(st.data(), st.integers(2, 10), st.sampled_from([0.5, 1.0, 2.0]))
def test_grades_under_weights_are_those_of_the_images_drawn(data, n, power):
    series = st.lists(st.sampled_from([0, 0.25, 0.5, 0.75, 1, NONE]), min_size=n, max_size=n)
    x, y = (np.array(data.draw(series), dtype=float) for _ in range(2))
    drawn = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    expected = grades(np.repeat(x, drawn), np.repeat(y, drawn), np.ones((1, drawn.sum())), power)
    for found, alike in zip(grades(x, y, drawn[None].astype(float), power), expected, strict=True):
        assert found == pytest.approx(alike, nan_ok=True, abs=1e-9)


# --- grades -------------------------------------------------------------------------------------------------------


def grade(own: np.ndarray, others: np.ndarray, power: float = 1.0) -> tuple[float, float]:
    """Raw and corrected."""
    raw, corrected = grades(own, others, np.ones((1, len(own))), power)
    return float(raw[0]), float(corrected[0])


def test_labels_become_scores_from_0_to_1():
    assert normalized(np.array([[1.0, 2, 3, 4, 5]])).tolist() == [[0, 0.25, 0.5, 0.75, 1]]


@settings(deadline=None)
@given(RATED)
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
@given(RATED, st.sampled_from([1.0, 2.0, 0.5]))
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
