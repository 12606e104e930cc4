"""The verdict says what the numbers show and no more."""

from dataclasses import replace

import numpy as np
import pytest

from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.studies.agreement.alternative import alternative_test
from finetune_monitor.studies.agreement.evaluators import MODEL, PEOPLE
from finetune_monitor.studies.agreement.study import Study, study
from finetune_monitor.studies.agreement_report.verdicts import Relation, Tone, alternative_sentence, compare, verdict
from support.studies import NAN, found, section
from support.worlds import guesses, sample, truth


def given(mean: float, low: float, high: float) -> Estimate:
    return Estimate(mean, low, high, 100, 0)


@pytest.mark.parametrize(
    ("low", "high", "relation"),
    [
        (0.01, 0.2, Relation.BETTER),
        (-0.2, -0.01, Relation.WORSE),
        (-0.09, 0.09, Relation.ALIKE),
        (-0.09, -0.01, Relation.ALIKE),
        (-0.19, 0.005, Relation.UNSURE),
        (-0.05, 0.11, Relation.UNSURE),
        (NAN, NAN, Relation.UNSURE),
    ],
)
def test_a_difference_is_what_its_interval_says(low, high, relation):
    assert compare(given((low + high) / 2, low, high)) is relation


BETTER, ALIKE, UNSURE, WORSE = ((0.1, 0.05, 0.15), (0.0, -0.05, 0.05), (0.0, -0.3, 0.3), (-0.3, -0.4, -0.2))
"""Differences: the model's kappa less people's, or the constant's error less the model's."""

POSITIVE, ZERO, NEGATIVE = (0.5, 0.4, 0.6), (0.1, -0.1, 0.3), (-0.3, -0.4, -0.2)
"""Kappas of the model."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kappa", "over_people", "over_constant", "tone", "headline", "said"),
    [
        (POSITIVE, BETTER, BETTER, Tone.GOOD, "Agrees better than another labeler", "better than another"),
        (POSITIVE, ALIKE, BETTER, Tone.GOOD, "Agrees about as well", "about as well as another"),
        (POSITIVE, ALIKE, ALIKE, Tone.FAIR, "not shown to beat a constant", "not shown to be closer"),
        (POSITIVE, UNSURE, BETTER, Tone.FAIR, "too uncertain to compare", "too uncertain to call"),
        (POSITIVE, UNSURE, ALIKE, Tone.UNCLEAR, "too uncertain to say more", "too uncertain to call"),
        (POSITIVE, WORSE, BETTER, Tone.FAIR, "less well than another labeler", "less well than"),
        (POSITIVE, WORSE, ALIKE, Tone.POOR, "not shown to beat a constant", "not shown to be closer"),
        (POSITIVE, WORSE, WORSE, Tone.POOR, "not shown to beat a constant", "further from people"),
        (ZERO, WORSE, ALIKE, Tone.POOR, "Not shown to be better than chance", "less well"),
        (NEGATIVE, WORSE, WORSE, Tone.POOR, "less than by chance", "less well than"),
        (POSITIVE, (NAN, NAN, NAN), BETTER, Tone.FAIR, "too uncertain to compare", "difference —"),
        ((NAN, NAN, NAN), UNSURE, BETTER, Tone.UNCLEAR, "Cannot be compared", "this needs two labelers"),
        ((0.6, NAN, NAN), UNSURE, BETTER, Tone.UNCLEAR, "Cannot be compared", "this needs two labelers"),
    ],
)
def test_the_verdict_says_what_the_intervals_show(kappa, over_people, over_constant, tone, headline, said):
    answer = verdict(section(changed(kappa, (0.5, 0.45, 0.55), over_people, over_constant)))
    assert answer.tone is tone
    assert headline in answer.headline
    assert said in " ".join(answer.sentences)
    assert "nan" not in " ".join([answer.headline, *answer.sentences, *answer.cautions]).lower()


def test_people_who_do_not_agree_are_nothing_to_agree_with():
    answer = verdict(section(changed(POSITIVE, (0.02, -0.1, 0.12), UNSURE, BETTER)))
    assert answer.tone is Tone.UNCLEAR
    assert "People are not shown to agree" in answer.headline
    assert "beyond chance" in " ".join(answer.sentences)


def changed(kappa, people, over_people, over_constant) -> Study:
    """A study with these numbers in the places that the verdict reads."""
    base = found("alike")
    rows = {name: dict(row) for name, row in base.mean.against_labeler.items()}
    rows[MODEL]["kappa"], rows[PEOPLE]["kappa"] = given(*kappa), given(*people)
    mean = replace(base.mean, against_labeler=rows)
    return replace(base, mean=mean, over_people=given(*over_people), over_constant=given(*over_constant))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "tone", "said"),
    [
        ("alike", Tone.GOOD, "about as well as another labeler does: kappa 0.5"),
        ("far better", Tone.GOOD, "better than another labeler does"),
        ("far worse", Tone.FAIR, "less well than another labeler does"),
        ("weak", Tone.POOR, "less well than another labeler does"),
        ("random people", Tone.UNCLEAR, "little to agree with"),
        ("reversed", Tone.POOR, "gets no stars: scores do not increase with people's ratings"),
        ("unrelated", Tone.POOR, "not shown to be related at all"),
        ("flat", Tone.POOR, "gets no stars: the scores, or the mean labels, are the same"),
        ("nothing scored", Tone.POOR, "gets no stars"),
    ],
)
def test_simulated_worlds_get_the_verdict_that_is_true_of_them(world, tone, said):
    answer = verdict(section(found(world)))
    assert said in " ".join(answer.sentences)
    assert answer.tone is tone


@pytest.mark.slow
def test_a_random_model_is_hardly_ever_called_good():
    """A model that knows nothing, in forty worlds; by chance one may look better than chance."""
    tones = []
    for seed in range(40):
        random, level = np.random.default_rng(seed), truth(seed, 160)
        labels = np.stack([guesses(level, 0.3, random) for _ in range(3)])
        study_found = study(sample(labels, random.random(160), 8), rounds=100)
        tones.append(verdict(section(study_found)).tone)
    assert tones.count(Tone.GOOD) == 0
    assert tones.count(Tone.FAIR) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "caution"),
    [
        ("three persons", "here there are 3"),
        ("no persons", "do not apply to others"),
        ("random people", "Krippendorff's alpha is"),
        ("two labelers", "at least three labelers"),
    ],
)
def test_thin_evidence_is_a_caution(world, caution):
    assert any(caution in line for line in verdict(section(found(world))).cautions)
    assert not any(caution in line for line in verdict(section(found("far worse"))).cautions)


def test_a_test_that_a_constant_passes_as_well_is_not_praised():
    base = found("alike")
    never = alternative_test(np.full(base.stars.shape, 9.0), base.sample.table.labels)
    always = alternative_test(base.sample.table.labels, base.sample.table.labels)
    assert always is not None
    passed = replace(base, alternative=always, constant_alternative=never)
    both, neither = replace(passed, constant_alternative=always), replace(passed, alternative=never)
    assert alternative_sentence(passed).endswith("test at epsilon 0.1, 0.15, 0.2.")
    assert "so does a constant at epsilon 0.1, 0.15, 0.2" in alternative_sentence(both)
    assert "does not pass" in alternative_sentence(neither)
    assert alternative_sentence(replace(base, alternative=None)) == ""
