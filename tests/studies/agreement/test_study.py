"""In a world whose truth is known every statistic lands where it must."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from finetune_monitor.stats.resampling import estimate, resamples
from finetune_monitor.studies.agreement.coefficients import kappa, normalized, without
from finetune_monitor.studies.agreement.evaluators import CONSTANT, MODEL, NAIVE, PEOPLE, SHUFFLE
from finetune_monitor.studies.agreement.settings import StudySettings
from finetune_monitor.studies.agreement.study import Study, study
from support.worlds import EACH, PERSONS, guesses, sample, truth

ROUNDS = 300


def guessing_world(people: float, model: float, labelers: int = 5, seed: int = 0) -> Study:
    """Everyone says the truth or, with their chance, anything; the score is the model's guess and some noise."""
    random, level = np.random.default_rng(seed), truth(seed)
    labels = np.stack([guesses(level, people, random) for _ in range(labelers)])
    scores = guesses(level, model, random) + random.uniform(-0.4, 0.4, len(level))
    return study(sample(labels, scores), rounds=ROUNDS)


@pytest.mark.slow
@pytest.mark.parametrize(("people", "model"), [(0.2, 0.0), (0.2, 0.2), (0.2, 0.5), (0.3, 0.1)])
def test_agreement_beyond_chance_is_what_was_put_in(people, model):
    found = guessing_world(people, model)
    own = found.mean.against_labeler
    shared, of_model = (1 - people) ** 2, (1 - people) * (1 - model)
    assert found.alpha.mean == pytest.approx(shared, abs=0.06)
    assert found.alpha.low < shared < found.alpha.high
    assert own[PEOPLE]["kappa"].mean == pytest.approx(shared, abs=0.06)
    assert own[MODEL]["pearson"].mean == pytest.approx(of_model, abs=0.05)
    assert own[PEOPLE]["exact"].mean == pytest.approx(shared + (1 - shared) / 5, abs=0.04)
    assert own[PEOPLE]["mae"].mean == pytest.approx(1.6 * (1 - shared), abs=0.06)
    if of_model > 0.5:  # where it guesses more, the least cost draws its stars together
        assert own[MODEL]["kappa"].mean == pytest.approx(of_model, abs=0.05)
        assert own[MODEL]["kappa"].low < of_model < own[MODEL]["kappa"].high
        assert own[MODEL]["mae"].mean == pytest.approx(1.6 * (1 - of_model), abs=0.08)


@pytest.mark.slow
def test_people_model_constant_and_shuffle_stand_in_their_order():
    found = guessing_world(0.3, 0.1)
    grade = {name: row["corrected"] for name, row in found.mean.against_others.items()}
    assert grade[MODEL].low > grade[PEOPLE].high > grade[PEOPLE].low > 0.4
    assert grade[CONSTANT].mean == pytest.approx(0, abs=0.01)
    assert grade[SHUFFLE].low < 0 < grade[SHUFFLE].high
    raw = {name: row["raw"].mean for name, row in found.mean.against_others.items()}
    assert raw[CONSTANT] > 0.7  # a raw grade flatters who says nothing
    assert found.mean.against_labeler[CONSTANT]["kappa"].mean == pytest.approx(0)
    assert "spearman" not in found.mean.against_others[CONSTANT]
    assert found.alternative is not None
    assert found.alternative.passes(0.1)


@pytest.mark.slow
def test_a_model_that_knows_nothing_is_seen_through():
    found = [guessing_world(0.2, 1.0, labelers=3, seed=seed) for seed in range(8)]
    starred = [each for each in found if not each.refused]
    assert len(starred) >= 2  # the others' Spearman is negative by chance
    for each in starred:
        own = each.mean.against_labeler
        assert own[MODEL]["kappa"].low < 0.03
        assert each.over_people.high < 0
        assert each.over_constant.low < 0
        assert each.mean.against_others[MODEL]["corrected"].mean < 0.06
        assert each.alternative is not None
        assert not each.alternative.passes(0.2)


@pytest.mark.slow
def test_each_kind_of_labeler_is_told_apart():
    """Good, bad, biased, constant and random labelers, against the mean of the others."""
    random = np.random.default_rng(0)
    level = truth()
    labels = np.stack(
        [
            guesses(level, 0.1, random),
            guesses(level, 0.1, random),
            guesses(level, 0.6, random),
            np.minimum(guesses(level, 0.1, random) + 1, 5),
            np.full(len(level), 3.0),
            random.integers(1, 6, len(level)).astype(float),
        ]
    )
    names = ["good 1", "good 2", "bad", "biased", "constant", "random"]
    found = study(sample(labels, level + random.normal(size=len(level)), labelers=names), rounds=ROUNDS)
    order = {seat.labeler: seat.against_others[PEOPLE] for seat in found.seats}
    grade = {name: order[name]["corrected"] for name in names}
    assert grade["good 1"].low > grade["bad"].high
    assert grade["bad"].low > grade["random"].high
    assert grade["random"].low < 0 < grade["random"].high
    assert grade["constant"].mean == pytest.approx(0)
    assert order["biased"]["spearman"].mean == pytest.approx(order["good 1"]["spearman"].mean, abs=0.06)
    assert grade["biased"].mean < grade["good 1"].mean - 0.05  # the same order, on another scale
    assert np.isnan(order["constant"]["spearman"].mean)
    assert order["constant"]["raw"].mean > order["random"]["raw"].mean
    mean = found.mean.against_others[PEOPLE]["spearman"].mean
    assert mean == pytest.approx(np.mean([order[name]["spearman"].mean for name in names if name != "constant"]))


@pytest.mark.slow
def test_a_model_that_memorized_persons_is_graded_too_high_by_the_naive_fold_alone():
    """It knows whom an image shows, and what is thought of them; each person is thought of alike."""
    random = np.random.default_rng(0)
    person = np.repeat(np.arange(5), 40)
    labels = np.stack([guesses(person + 1, 0.1, random) for _ in range(5)])
    found = study(sample(labels, person + 0.01 * random.random(200), persons=5), rounds=ROUNDS)
    own = found.mean.against_labeler
    assert own[NAIVE]["kappa"].mean > 0.85
    assert own[NAIVE]["mae"].high < 0.25 < 1 < own[MODEL]["mae"].low
    assert own[MODEL]["kappa"].mean < own[NAIVE]["kappa"].mean - 0.2
    assert found.mean.against_others[NAIVE]["corrected"].mean > found.mean.against_others[MODEL]["corrected"].mean + 0.3
    inside = found.overall["spearman_within_person"]
    assert found.overall["spearman"].mean > 0.9
    assert inside.low < 0 < inside.high


def test_scores_that_fall_where_people_rate_higher_get_no_stars():
    random, level = np.random.default_rng(0), truth()
    labels = np.stack([guesses(level, 0.2, random) for _ in range(3)])
    found = study(sample(labels, -level + random.normal(size=len(level))), rounds=50)
    assert found.refused is not None
    assert "Spearman -0." in found.refused
    assert not found.buckets
    assert found.alternative is None
    assert np.isnan(found.stars).all()
    assert np.isnan(found.mean.against_labeler[MODEL]["kappa"].mean)
    assert found.mean.against_labeler[MODEL]["spearman"].high < 0
    assert found.mean.against_labeler[PEOPLE]["kappa"].mean > 0.5


def test_a_score_that_never_changes_gets_no_stars():
    labels = np.stack([truth().astype(float)] * 3)
    found = study(sample(labels, np.full(labels.shape[1], 0.5)), rounds=50)
    assert found.refused is not None
    assert "the same" in found.refused


@pytest.mark.slow
def test_only_the_order_of_the_scores_counts():
    random, level = np.random.default_rng(0), truth()
    labels = np.stack([guesses(level, 0.3, random) for _ in range(4)])
    scores = level + random.normal(size=len(level))
    first, second = (study(sample(labels, s), rounds=20) for s in (scores, np.exp(scores)))
    assert np.array_equal(first.stars, second.stars)
    for name in ("spearman", "kendall"):
        assert first.overall[name] == second.overall[name]


def test_every_number_of_a_fold_is_that_of_the_usual_programs():
    random, level = np.random.default_rng(1), truth(1)
    labels = np.stack([guesses(level, 0.3, random) for _ in range(3)])
    labels[random.random(labels.shape) < 0.1] = np.nan
    scores = level + random.normal(size=len(level))
    scores[:5] = np.nan
    found = study(sample(labels, scores), rounds=20)
    labels[:, :5] = np.nan  # what has no score is compared with nothing
    for seat, (own, stars) in enumerate(zip(labels, found.stars, strict=True)):
        both = ~np.isnan(own) & ~np.isnan(stars)
        row, others = found.seats[seat].against_labeler[MODEL], without(normalized(labels), seat)
        assert row["kappa"].mean == pytest.approx(
            cohen_kappa_score(own[both], stars[both], weights="quadratic", labels=[1, 2, 3, 4, 5])
        )
        assert row["mae"].mean == pytest.approx(np.nanmean(np.abs(own - stars)))
        assert row["spearman"].mean == pytest.approx(spearmanr(own, scores, nan_policy="omit").statistic)
        graded = found.seats[seat].against_others[PEOPLE]
        distance = np.nanmean(np.abs(normalized(labels)[seat] - others))
        assert graded["raw"].mean == pytest.approx(1 - distance)
        assert graded["mae"].mean == pytest.approx(4 * distance)
        assert found.seats[seat].n == (~np.isnan(own)).sum()
    assert found.confusions[MODEL].sum() == sum((~np.isnan(labels) & ~np.isnan(found.stars)).sum(axis=1))
    assert found.confusions[PEOPLE].trace() / found.confusions[PEOPLE].sum() == pytest.approx(
        np.mean([(a == b)[~np.isnan(a + b)].mean() for a, b in zip(labels, np.roll(labels, 1, axis=0), strict=True)]),
        abs=0.02,
    )


def test_without_persons_the_folds_are_blocks_and_the_bootstrap_goes_over_images():
    random, level = np.random.default_rng(0), truth(images=150)
    labels = np.stack([guesses(level, 0.3, random) for _ in range(3)])
    for persons in (0, 1):
        found = study(sample(labels, level + random.normal(size=150), persons=persons), rounds=20)
        assert found.sample.unit == "image"
        assert not any("within" in name for name in found.overall)
        assert not np.isnan(found.stars).any()


def test_of_one_person_the_cells_are_held_out_as_wholes():
    """One run, eight cells at eight steps, nearly the same image each time; the score knows which cell, no more."""
    random = np.random.default_rng(0)
    cells = tuple(f"cell {i % 8}" for i in range(64))
    worth, mark = random.permutation([1, 2, 2, 3, 3, 4, 4, 5]), np.arange(8)
    labels = np.stack([np.tile(worth, 8).astype(float)] * 4)
    known = sample(labels, np.tile(mark, 8) + 0.01 * random.random(64), persons=1)
    by_image, by_cell = (study(each, rounds=200) for each in (known, replace(known, cells=cells)))
    assert (by_image.sample.unit, by_cell.sample.unit) == ("image", "cell")
    spearman = [each.overall["spearman"] for each in (by_image, by_cell)]
    assert spearman[0].mean == spearman[1].mean
    assert spearman[1].high - spearman[1].low > 2 * (spearman[0].high - spearman[0].low)
    if not by_cell.refused:
        errors = [each.mean.against_labeler[MODEL]["mae"].mean for each in (by_image, by_cell)]
        assert errors[1] > errors[0] + 0.2


@pytest.mark.slow
def test_images_without_a_score_are_compared_with_nothing():
    """People agree that an image without a face is a 1: that must not count for them where the model is silent."""
    random, level = np.random.default_rng(0), truth(images=400)
    labels = np.stack([guesses(level, 0.5, random) for _ in range(4)])
    scores = guesses(level, 0.5, random) + 0.1 * random.random(400)
    faceless = np.arange(400) % 10 < 3
    labels[:, faceless], scores[faceless] = 1, np.nan
    found = study(sample(labels, scores), rounds=ROUNDS)
    alone = study(sample(labels[:, ~faceless], scores[~faceless]), rounds=ROUNDS)
    for name in (PEOPLE, MODEL, CONSTANT):
        assert found.mean.against_labeler[name]["mae"].mean == alone.mean.against_labeler[name]["mae"].mean
    assert found.over_people.low < 0 < found.over_people.high
    assert np.isnan(found.stars[:, faceless]).all()
    assert not np.isnan(found.stars[:, ~faceless]).any()
    assert (found.overall["spearman"].n, found.overall["spearman"].missing) == (280, 120)
    assert sum(found.confusions[PEOPLE].ravel()) == 4 * 3 * 280


@pytest.mark.slow
def test_standardized_labels_take_a_labelers_scale_out_of_the_mean():
    """One labeler uses the whole scale and knows nothing, two know the truth and hardly move."""
    random, level = np.random.default_rng(9), truth()
    quiet = np.clip(np.rint(3 + 0.4 * (level - 3)), 1, 5)
    labels = np.stack([quiet, quiet, random.choice([1.0, 5.0], len(level))])
    settings = (StudySettings(standardize=each) for each in (False, True))
    plain, alike = (study(sample(labels, level.astype(float)), each, 20) for each in settings)
    assert alike.overall["pearson"].mean > plain.overall["pearson"].mean + 0.1


@pytest.mark.slow
def test_the_interval_of_kappa_holds_the_truth_about_as_often_as_it_says():
    """Persons make no difference here, so that even an interval over eight of them is nearly right."""
    held = 0
    for seed in range(100):
        random, level = np.random.default_rng(seed), truth(seed)
        x, y = (guesses(level, 0.3, random) for _ in range(2))
        weights = resamples(np.repeat(np.arange(PERSONS), EACH), 200, seed)
        found = estimate(kappa(x, y, weights), len(level))
        held += found.low < 0.49 < found.high
    assert 83 <= held <= 100


@pytest.mark.slow
def test_differences_are_measured_on_the_same_images():
    """The interval of a paired difference is narrower than two intervals side by side make it seem."""
    found = guessing_world(0.3, 0.1)
    own = found.mean.against_labeler
    assert found.over_people.mean == pytest.approx(own[MODEL]["kappa"].mean - own[PEOPLE]["kappa"].mean)
    assert found.over_constant.mean == pytest.approx(own[CONSTANT]["mae"].mean - own[MODEL]["mae"].mean)
    assert found.over_people.low > 0
    width = found.over_people.high - found.over_people.low
    assert width < 0.7 * sum(own[name]["kappa"].high - own[name]["kappa"].low for name in (MODEL, PEOPLE))


def test_one_labeler_is_too_few():
    with pytest.raises(ValueError, match="at least two"):
        study(sample(truth()[None].astype(float), truth().astype(float)))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers():
    first, second = (guessing_world(0.2, 0.2, labelers=3) for _ in range(2))
    assert first.mean.against_labeler == second.mean.against_labeler
