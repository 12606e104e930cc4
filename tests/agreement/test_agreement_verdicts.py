"""The verdict says what the numbers show and no more."""

from dataclasses import replace

import numpy as np
import pytest
from studies import NAN, found, section

from finetune_monitor.agreement.alternative import alternative_test
from finetune_monitor.agreement.reporting.verdicts import Relation, Tone, alternative_sentence, compare, verdict
from finetune_monitor.agreement.seats import CONSTANT, MODEL, PEOPLE
from finetune_monitor.evaluation import Estimate


def given(mean: float, low: float, high: float) -> Estimate:
    return Estimate(mean, low, high, 100, 0)


@pytest.mark.parametrize(
    ("own", "other", "relation"),
    [
        ((0.8, 0.75, 0.85), (0.6, 0.55, 0.65), Relation.BETTER),
        ((0.6, 0.55, 0.65), (0.8, 0.75, 0.85), Relation.WORSE),
        ((0.71, 0.66, 0.76), (0.72, 0.67, 0.77), Relation.ALIKE),
        ((0.71, 0.56, 0.86), (0.72, 0.67, 0.77), Relation.UNSURE),
        ((0.2, -0.5, 0.9), (0.5, 0.1, 0.9), Relation.UNSURE),
        ((0.76, 0.71, 0.81), (0.70, 0.65, 0.75), Relation.PERHAPS_BETTER),
        ((0.70, 0.65, 0.75), (0.76, 0.71, 0.81), Relation.PERHAPS_WORSE),
        ((0.5, NAN, NAN), (0.6, 0.55, 0.65), Relation.PERHAPS_WORSE),
        ((0.7, 0.6, 0.8), (0.6, NAN, NAN), Relation.PERHAPS_BETTER),
        ((NAN, NAN, NAN), (0.6, 0.55, 0.65), Relation.NOT_COMPARED),
        ((0.6, 0.55, 0.65), (NAN, NAN, NAN), Relation.NOT_COMPARED),
    ],
)
def test_estimates_are_compared_by_their_intervals(own, other, relation):
    assert compare(given(*own), given(*other)) is relation


def test_errors_are_better_where_they_are_lower():
    low, high = given(0.5, 0.45, 0.55), given(0.9, 0.85, 0.95)
    assert compare(low, high, lower_is_better=True) is Relation.BETTER
    assert compare(high, low, lower_is_better=True) is Relation.WORSE


BEATEN, EVEN, LOST = ((0.5, 0.45, 0.55), (1.0, 0.95, 1.05), (1.3, 1.25, 1.35))
"""The model's mean absolute error against a constant's of 1 [0.95, 1.05]."""


@pytest.mark.parametrize(
    ("model", "others", "error", "tone", "headline", "said"),
    [
        ((0.8, 0.75, 0.85), (0.6, 0.55, 0.65), BEATEN, Tone.GOOD, "Agrees better than another labeler", "better than"),
        ((0.6, 0.55, 0.65), (0.6, 0.55, 0.65), BEATEN, Tone.GOOD, "Agrees about as well", "about as well as another"),
        ((0.6, 0.55, 0.65), (0.6, 0.55, 0.65), EVEN, Tone.FAIR, "not shown to beat a constant", "not shown to be"),
        ((0.6, 0.4, 0.8), (0.6, 0.55, 0.65), BEATEN, Tone.FAIR, "too uncertain to compare", "too wide to call"),
        ((0.6, 0.4, 0.8), (0.6, 0.55, 0.65), EVEN, Tone.UNCLEAR, "too uncertain to say more", "too wide to call"),
        ((0.7, 0.6, 0.8), (0.58, 0.51, 0.65), BEATEN, Tone.FAIR, "perhaps another labeler too", "may agree"),
        ((0.58, 0.51, 0.65), (0.7, 0.6, 0.8), BEATEN, Tone.FAIR, "perhaps worse than another", "but the intervals"),
        ((0.3, 0.2, 0.4), (0.6, 0.55, 0.65), BEATEN, Tone.FAIR, "less well than another labeler", "less well than"),
        ((0.3, 0.2, 0.4), (0.6, 0.55, 0.65), EVEN, Tone.POOR, "not shown to beat a constant", "not shown to be"),
        ((0.3, 0.2, 0.4), (0.6, 0.55, 0.65), LOST, Tone.POOR, "not shown to beat a constant", "further from people"),
        ((0.1, -0.1, 0.3), (0.6, 0.55, 0.65), EVEN, Tone.POOR, "Not shown to be better than chance", "less well"),
        ((-0.3, -0.4, -0.2), (0.6, 0.55, 0.65), LOST, Tone.POOR, "less than by chance", "less well than"),
        ((0.1, 0.05, 0.15), (0.02, -0.1, 0.12), BEATEN, Tone.UNCLEAR, "People are not shown to agree", "beyond chance"),
        ((0.3, 0.2, 0.4), (0.6, NAN, NAN), BEATEN, Tone.FAIR, "perhaps worse", "but no interval is known"),
        ((NAN, NAN, NAN), (0.6, 0.55, 0.65), BEATEN, Tone.UNCLEAR, "Cannot be compared", "that takes two labelers"),
        ((0.6, NAN, NAN), (0.6, 0.55, 0.65), BEATEN, Tone.UNCLEAR, "Cannot be compared", "that takes two labelers"),
    ],
)
def test_the_verdict_says_what_the_intervals_show(model, others, error, tone, headline, said):
    base = found("alike")
    rows = {name: dict(row) for name, row in base.mean.against_labeler.items()}
    rows[MODEL] |= {"kappa": given(*model), "mae": given(*error)}
    rows[PEOPLE]["kappa"] = given(*others)
    rows[CONSTANT]["mae"] = given(1, 0.95, 1.05)
    changed = replace(base, mean=replace(base.mean, against_labeler=rows))
    answer = verdict(section(changed))
    assert answer.tone is tone
    assert headline in answer.headline
    assert said in " ".join(answer.sentences)
    assert "nan" not in " ".join([answer.headline, *answer.sentences, *answer.cautions]).lower()


@pytest.mark.parametrize(
    ("world", "tone", "said"),
    [
        ("alike", Tone.GOOD, "about as well as another labeler does: kappa 0.5"),
        ("far better", Tone.GOOD, "better than another labeler does"),
        ("far worse", Tone.FAIR, "less well than another labeler does"),
        ("weak", Tone.POOR, "less well than another labeler does"),
        ("random people", Tone.UNCLEAR, "little to agree with"),
        ("reversed", Tone.POOR, "gets no stars: scores fall where people rate higher"),
        ("unrelated", Tone.POOR, "not shown to be related at all"),
        ("flat", Tone.POOR, "gets no stars: the scores, or the mean labels, are the same"),
        ("nothing scored", Tone.POOR, "gets no stars"),
    ],
)
def test_simulated_worlds_get_the_verdict_that_is_true_of_them(world, tone, said):
    answer = verdict(section(found(world)))
    assert said in " ".join(answer.sentences)
    assert answer.tone is tone


def test_a_random_model_is_not_called_good():
    assert verdict(section(found("random"))).tone in (Tone.POOR, Tone.UNCLEAR)


@pytest.mark.parametrize(
    ("world", "caution"),
    [
        ("three persons", "here there are 3"),
        ("no persons", "say nothing of other persons"),
        ("random people", "Krippendorff's alpha is"),
        ("two labelers", "three labelers at least"),
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
    assert "a constant passes at epsilon 0.1, 0.15, 0.2 as well" in alternative_sentence(both)
    assert "does not pass" in alternative_sentence(neither)
    assert alternative_sentence(replace(base, alternative=None)) == ""
