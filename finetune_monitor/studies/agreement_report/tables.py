"""The report's tables as data, so that the page and the Markdown show the same numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from finetune_monitor.metrics.thresholds import STEPS, Buckets
from finetune_monitor.stats.estimate import NO_ESTIMATE, Estimate
from finetune_monitor.studies.agreement.alternative import EPSILONS
from finetune_monitor.studies.agreement.evaluators import CONSTANT, MODEL, NAIVE, PEOPLE, RANKINGS, SHUFFLE
from finetune_monitor.studies.agreement.label_matrix import HASTY_SHARE, LOW_COVERAGE, Labeler
from finetune_monitor.studies.agreement.settings import METHOD_NAMES
from finetune_monitor.studies.agreement.study import PERSON, WITHIN, Seat, StatisticTable, Study

Shares: TypeAlias = tuple[float, ...]
"""Of the labels 1 to 5, 0..1."""

Cell: TypeAlias = str | float | Estimate | Shares

Line: TypeAlias = tuple[Cell, ...]

EVALUATORS = (PEOPLE, MODEL, NAIVE, CONSTANT, SHUFFLE)
OF_STARS = (MODEL, NAIVE, SHUFFLE)

COEFFICIENTS = {"spearman": "Spearman", "pearson": "Pearson", "kendall": "Kendall tau-b"}

IN_SEAT = ("spearman", "kappa", "mae", "exact", "within_one")
"""Statistics against the held-out labeler; the first one exists even without stars."""

GRADES = ("corrected", "raw")
"""Statistics against the mean of the others."""


@dataclass(frozen=True)
class Column:
    """A column's head, its number format, and the group head that it shares with its neighbors."""

    name: str
    form: str = ".2f"
    group: str = ""
    words: bool = False


@dataclass(frozen=True)
class Table:
    """Cells in columns; the first cell names its row. The row with index `marked` is highlighted."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Line, ...]
    marked: int | None = None
    note: str = ""


STATISTIC_COLUMNS = {
    "spearman": Column("Spearman"),
    "kappa": Column("kappa"),
    "mae": Column("MAE"),
    "exact": Column("exact", ".0%"),
    "within_one": Column("within 1", ".0%"),
    "corrected": Column("G*"),
    "raw": Column("G"),
}


def folds_table(study: Study) -> Table:
    """One row per fold: the model in the place of the held-out labeler; without stars if there are none."""
    own = _in_group("model and the labeler", IN_SEAT[:1] if study.refused else IN_SEAT)
    model = [] if study.refused else _in_group("model and the others", GRADES)
    people = _in_group("labeler and the others", GRADES)
    columns = (Column("held out", words=True), Column("labels", ",.0f"), *own, *model, *people)
    rows = [_fold(seat, bool(study.refused)) for seat in (*study.seats, study.mean)]
    return Table("One held-out labeler per fold", columns, tuple(rows), len(study.seats))


def side_by_side(study: Study) -> list[Table]:
    """People, model, constant, and shuffle against the held-out labeler, and against the mean of the others."""
    used = [name for name in EVALUATORS if not (study.refused and name in OF_STARS)]
    statistics = {
        "against_labeler": IN_SEAT,
        "against_others": ("spearman", *GRADES, "mae"),
    }
    captions = {
        "against_labeler": "Against the held-out labeler",
        "against_others": "Against the mean of the other labelers",
    }
    notes = {
        "against_labeler": "People: each of the other labelers, averaged.",
        "against_others": "People: the held-out labeler.",
    }
    found = []
    for side, names in statistics.items():
        columns = (Column("who", words=True), *(STATISTIC_COLUMNS[name] for name in names))
        rows: StatisticTable = getattr(study.mean, side)
        lines: list[Line] = [(who, *_picked(rows[who], names)) for who in used]
        found.append(
            Table(captions[side], columns, tuple(lines), None if study.refused else used.index(MODEL), notes[side])
        )
    return found


def score_table(study: Study) -> Table:
    """Correlations of the continuous score, with those of people, also within a person if people are known."""
    own, others = study.mean.against_labeler, study.mean.against_others
    correlated = ((others, MODEL), (own, MODEL), (others, PEOPLE), (own, PEOPLE))
    columns = (
        Column("statistic", words=True),
        Column("mean of all labels", group="score and"),
        Column("mean of the others", group="score and"),
        Column("one labeler", group="score and"),
        Column("mean of the others", group="a labeler and"),
        Column("another labeler", group="a labeler and"),
    )
    names = {statistic: COEFFICIENTS[statistic] for statistic in RANKINGS}
    if study.sample.unit == PERSON:
        names |= {statistic + WITHIN: f"{COEFFICIENTS[statistic]}, within a person" for statistic in RANKINGS}
    rows: list[Line] = []
    for statistic, shown in names.items():
        beside = [side[who].get(statistic, NO_ESTIMATE) for side, who in correlated]
        rows.append((shown, study.overall.get(statistic, NO_ESTIMATE), *beside))
    return Table("Correlation of the continuous score, before conversion to stars", columns, tuple(rows))


def agreement_table(study: Study) -> Table:
    """How well the labelers agree with each other."""
    pairs = study.mean.against_labeler[PEOPLE]
    rows = (
        ("Krippendorff's alpha, ordinal", study.alpha),
        ("kappa of two labelers, mean", pairs.get("kappa", NO_ESTIMATE)),
        ("Spearman of two labelers, mean", pairs.get("spearman", NO_ESTIMATE)),
        ("Spearman of a labeler and the mean of the others", study.mean.against_others[PEOPLE]["spearman"]),
    )
    return Table("Agreement of the labelers", (Column("statistic", words=True), Column("value")), rows)


def labelers_table(labelers: Sequence[Labeler], study: Study) -> Table:
    """Each labeler's answers, and the model's result in their place; empty columns are left out."""
    columns = (
        Column("labeler", words=True),
        Column("labels", ",.0f"),
        Column("coverage", ".0%"),
        Column("mean"),
        Column("sd"),
        Column("share of 1 to 5", ".0%"),
        Column("Spearman with the others"),
        Column("model as close or closer", ".0%"),
        Column("repeats equal"),
        Column("median s", ".1f"),
        Column("remarks", words=True),
    )
    alternative = study.alternative
    advantages = [math.nan] * len(labelers) if alternative is None else alternative.advantages.tolist()
    shared = [seat.against_others[PEOPLE]["spearman"] for seat in study.seats]
    rows = [_labeler(*each) for each in zip(labelers, advantages, shared, strict=True)]
    used = [place for place in range(len(columns)) if any(_said(row[place]) for row in rows)]
    return Table(
        "The labelers",
        tuple(columns[place] for place in used),
        tuple(tuple(row[place] for place in used) for row in rows),
    )


def alternative_table(study: Study) -> Table | None:
    """The alternative annotator test of the model and of a constant."""
    found, constant = study.alternative, study.constant_alternative
    if found is None or constant is None:
        return None
    rows: list[Line] = [
        (who, test.advantage, *(test.winning_rates[epsilon] for epsilon in EPSILONS))
        for who, test in (("model", found), ("constant", constant))
    ]
    rates = [Column(f"epsilon {epsilon:g}", ".0%", "share of labelers that it can replace") for epsilon in EPSILONS]
    columns = (Column("who", words=True), Column("advantage", ".0%"), *rates)
    return Table("Alternative annotator test", columns, tuple(rows), 0)


def thresholds_table(study: Study) -> Table:
    """The thresholds of both methods in the score's unit, their cost, and how often they give each star."""
    borders = [Column(f"{step} | {step + 1}", group="threshold between stars") for step in STEPS[:-1]]
    columns = (
        Column("method", words=True),
        *borders,
        Column("cost per label", ".3f"),
        Column("share of 1 to 5 stars", ".0%"),
    )
    given = int((~np.isnan(study.sample.labels)).sum())
    rows: list[Line] = []
    for name, found in study.buckets.items():
        chosen = " (chosen)" if name == study.method else ""
        shown = [_threshold(value) for value in found.thresholds]
        cost = found.cost / given
        rows.append((METHOD_NAMES[name] + chosen, *shown, cost, shares(_stars(study, found))))
    people: Line = ("labels of people", *[""] * len(borders), "", shares(study.sample.labels))
    marked = list(study.buckets).index(study.method)
    return Table("Thresholds fitted to all labels", columns, (*rows, people), marked)


def histograms(study: Study) -> dict[str, Shares]:
    """The share of each step: people's labels, then the stars of each method."""
    found = {"labels of people": shares(study.sample.labels)}
    for name, buckets in study.buckets.items():
        found[f"stars, {METHOD_NAMES[name]}"] = shares(_stars(study, buckets))
    return found


def shares(labels: Float[np.ndarray, "*any"]) -> Shares:
    """The share of each label from 1 to 5, among the non-missing ones."""
    given = labels[~np.isnan(labels)]
    return tuple(float((given == step).mean()) if len(given) else math.nan for step in STEPS)


def grades(study: Study) -> list[tuple[str, str, Estimate, Estimate]]:
    """Name, kind (a word for the style), G*, and G of every labeler, model, constant, and shuffle, highest G* first."""
    found = [(seat.labeler, PEOPLE, seat.against_others[PEOPLE]) for seat in study.seats]
    used = (CONSTANT,) if study.refused else (MODEL, CONSTANT, SHUFFLE)
    found += [(name, name.rpartition(", ")[2], study.mean.against_others[name]) for name in used]
    graded = [(name, kind, row["corrected"], row["raw"]) for name, kind, row in found]
    return sorted(graded, key=lambda each: -math.inf if math.isnan(each[2].mean) else each[2].mean, reverse=True)


def _in_group(group: str, names: Sequence[str]) -> list[Column]:
    return [replace(STATISTIC_COLUMNS[name], group=group) for name in names]


def _picked(row: Mapping[str, Estimate], names: Sequence[str]) -> list[Estimate]:
    return [row.get(name, NO_ESTIMATE) for name in names]


def _fold(seat: Seat, refused: bool) -> Line:
    own = IN_SEAT[:1] if refused else IN_SEAT
    model = [] if refused else _picked(seat.against_others[MODEL], GRADES)
    people = _picked(seat.against_others[PEOPLE], GRADES)
    return (seat.labeler, float(seat.n), *_picked(seat.against_labeler[MODEL], own), *model, *people)


def _said(content: Cell) -> bool:
    return bool(content) if isinstance(content, str) else not (isinstance(content, float) and math.isnan(content))


def _labeler(found: Labeler, advantage: float, shared: Estimate) -> Line:
    again = "" if not found.repeats else f"{found.consistency:.0%} of {found.repeats}"
    remarks = {
        "always the same": found.constant,
        "few images": found.coverage < LOW_COVERAGE,
        "hasty": found.hasty >= HASTY_SHARE,
        "against the others": found.others < 0,
    }
    return (
        found.name,
        float(found.n),
        found.coverage,
        found.mean,
        found.deviation,
        found.shares,
        shared,
        advantage,
        again,
        found.median_ms / 1000,
        ", ".join(name for name, so in remarks.items() if so),
    )


def _stars(study: Study, buckets: Buckets) -> Float[np.ndarray, "samples"]:
    return buckets.steps(study.sample.scores)


def _threshold(value: float) -> str:
    return "none" if math.isinf(value) else f"{value:.4g}"
