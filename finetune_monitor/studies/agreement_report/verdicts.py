"""State in a sentence or two whether scores can be trusted like people's labels, and claim no more than is shown."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from finetune_monitor.stats.estimate import NO_ESTIMATE, Estimate, shown
from finetune_monitor.studies.agreement.alternative import EPSILONS
from finetune_monitor.studies.agreement.evaluators import CONSTANT, MODEL, PEOPLE
from finetune_monitor.studies.agreement.study import CELL, IMAGE, PERSON, ReportSection, Study

MARGIN = 0.1
"""Two kappas count as equal if the entire interval of their difference is within this distance of 0."""

FEW_PERSONS = 5

_UNITS = {CELL: "prompt and seed", IMAGE: "image"}

LOOSE = 0.667
"""Krippendorff's customary minimum alpha for tentative conclusions (2018, Content Analysis, 4th edition)."""


class Tone(str, Enum):
    """The tone of a verdict; the value is its class on the page."""

    GOOD = "good"
    FAIR = "fair"
    UNCLEAR = "unclear"
    POOR = "poor"


class Relation(Enum):
    """How the model compares with another evaluator, by the interval of the difference on the same images."""

    BETTER = "better"
    ALIKE = "alike"
    UNSURE = "unsure"
    WORSE = "worse"


@dataclass(frozen=True)
class AgreementVerdict:
    """The answer to the question of the report, for one metric.

    headline: a few words; sentences: the numbers behind it; cautions: reasons for less trust.
    """

    tone: Tone
    headline: str
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]


def verdict(section: ReportSection) -> AgreementVerdict:
    """The verdict on the numbers with their intervals; what they do not show is stated as not shown."""
    study = section.study
    tone, headline, sentences = _refused(section) if study.refused else _compared(section)
    return AgreementVerdict(tone, headline, tuple(sentences), tuple(_cautions(section)))


def compare(gain: Estimate) -> Relation:
    """Better or worse if the interval excludes 0; alike if all of it is near 0, which takes precedence over worse."""
    if gain.low > 0:
        return Relation.BETTER
    if gain.low > -MARGIN and gain.high < MARGIN:
        return Relation.ALIKE
    return Relation.WORSE if gain.high < 0 else Relation.UNSURE


def alternative_sentence(study: Study) -> str:
    """A sentence on the result of `alternative.alternative_test`; empty if it was not run."""
    if study.alternative is None:
        return ""
    constant = study.constant_alternative
    passed = [epsilon for epsilon in EPSILONS if study.alternative.passes(epsilon)]
    if not passed:
        return "It does not pass the alternative annotator test."
    also = [epsilon for epsilon in passed if constant is not None and constant.passes(epsilon)]
    but = f", but so does a constant at {_listed(also)}, where passing means little" if also else ""
    return f"It passes the alternative annotator test at {_listed(passed)}{but}."


def _listed(epsilons: list[float]) -> str:
    return "epsilon " + ", ".join(f"{epsilon:g}" for epsilon in epsilons)


def _refused(section: ReportSection) -> tuple[Tone, str, list[str]]:
    sentences = [f"{section.metric} gets no stars: {section.study.refused}."]
    if section.study.overall["spearman"].high >= 0:
        sentences.append("That interval includes 0, so scores and labels are not shown to be related at all.")
    return Tone.POOR, "No stars", sentences


def _compared(section: ReportSection) -> tuple[Tone, str, list[str]]:
    study = section.study
    rows = study.mean.against_labeler
    model, people = (rows[name].get("kappa", NO_ESTIMATE) for name in (MODEL, PEOPLE))
    if np.isnan([model.low, people.mean]).any():
        why = "this needs two labelers, and more images with a score that both have labeled"
        return Tone.UNCLEAR, "Cannot be compared", [f"{section.metric} cannot be compared with people: {why}."]
    relation, constant = compare(study.over_people), compare(study.over_constant)
    tone, headline = _judged(model, people, relation, constant is Relation.BETTER)
    sentence = _against_people(section, model, people, relation)
    return tone, headline, [sentence, _against_constant(study, constant), *_hollow(people)]


def _judged(model: Estimate, people: Estimate, relation: Relation, beaten: bool) -> tuple[Tone, str]:
    """beaten: whether the model is shown to be closer to the labels than a constant."""
    if people.low <= 0:
        return Tone.UNCLEAR, "People are not shown to agree with each other"
    if model.high < 0:
        return Tone.POOR, "Agrees less than by chance"
    if model.low <= 0:
        return Tone.POOR, "Not shown to be better than chance"
    if relation in (Relation.BETTER, Relation.ALIKE):
        how = "better than" if relation is Relation.BETTER else "about as well as"
        unlike = "" if beaten else ", but is not shown to beat a constant"
        return Tone.GOOD if beaten else Tone.FAIR, f"Agrees {how} another labeler{unlike}"
    if beaten:
        unsure = "Beats a constant; too uncertain to compare with a labeler"
        worse = "Agrees less well than another labeler, but beats a constant"
        return Tone.FAIR, worse if relation is Relation.WORSE else unsure
    if relation is Relation.WORSE:
        return Tone.POOR, "Better than chance, but not shown to beat a constant"
    return Tone.UNCLEAR, "Better than chance; too uncertain to say more"


def _against_people(section: ReportSection, model: Estimate, people: Estimate, relation: Relation) -> str:
    how = {
        Relation.BETTER: "agrees with a labeler better than another labeler does",
        Relation.ALIKE: "agrees with a labeler about as well as another labeler does",
        Relation.UNSURE: "does not differ significantly from another labeler, but is too uncertain to call equal",
        Relation.WORSE: "agrees with a labeler less well than another labeler does",
    }[relation]
    difference = shown(section.study.over_people, "+.2f")
    values = f"kappa {shown(model, '.2f')} against {shown(people, '.2f')}, difference {difference}"
    return f"{section.metric} {how}: {values}."


def _against_constant(study: Study, relation: Relation) -> str:
    rows = study.mean.against_labeler
    how = {Relation.BETTER: "closer to", Relation.WORSE: "further from"}.get(relation, "not shown to be closer to")
    model, constant = (shown(rows[name]["mae"], ".2f") for name in (MODEL, CONSTANT))
    return (
        f"Its stars are {how} people's labels than a single label for all images: off by {model} steps on average, "
        f"compared with {constant}; closer by {shown(study.over_constant, '+.2f')}."
    )


def _hollow(people: Estimate) -> list[str]:
    if not people.low <= 0:
        return []
    return ["Labelers are not shown to agree with each other beyond chance, so there is little to agree with."]


def _cautions(section: ReportSection) -> list[str]:
    study = section.study
    found = []
    if study.sample.unit == PERSON and section.persons < FEW_PERSONS:
        found.append(f"Intervals over fewer than about five people are too narrow; here there are {section.persons}.")
    elif study.sample.unit != PERSON:
        known = "There is only one person" if section.persons else "People are unknown"
        found.append(
            f"{known}, so the results do not apply to others: folds and intervals are by {_UNITS[study.sample.unit]}."
        )
    if study.alpha.mean < LOOSE:
        alpha = shown(study.alpha, ".2f")
        found.append(
            f"People agree only loosely: Krippendorff's alpha is {alpha}, and {LOOSE} is the customary minimum for "
            "tentative conclusions."
        )
    if len(section.labelers) < 3:
        found.append("Grades against the mean of the others need at least three labelers.")
    return found
