"""Compare one metric with its labelers: people, model, constant, and shuffle side by side, as a report section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from tqdm import tqdm

from finetune_monitor.base.text import counted
from finetune_monitor.metrics.thresholds import STEPS, Buckets
from finetune_monitor.stats.estimate import Estimate, shown
from finetune_monitor.stats.resampling import ROUNDS, estimate, resamples
from finetune_monitor.studies.agreement.alternative import AlternativeTest, alternative_test
from finetune_monitor.studies.agreement.coefficients import (
    Labels,
    alpha,
    confusion,
    normalized,
    sample_scores,
    standardized,
    within,
)
from finetune_monitor.studies.agreement.evaluators import (
    CONSTANT,
    MODEL,
    NAIVE,
    PEOPLE,
    RANKINGS,
    SHUFFLE,
    Lineup,
    Statistics,
    against_labeler,
    against_others,
    mean_rows,
    people_rows,
    shuffled,
)
from finetune_monitor.studies.agreement.label_matrix import Labeler, LabelTable
from finetune_monitor.studies.agreement.settings import DEFAULTS, METHOD_NAMES, StudySettings
from finetune_monitor.studies.agreement.star_fitting import METHODS, clean_stars, fold_groups, naive_stars

PERSON, CELL, IMAGE = "person", "cell", "image"
"""The units of folds and bootstrap: people; prompts with their seeds, because images of one at several steps are near
copies; or images, if it is unknown which belong together.
"""

UNIT_NAMES = {PERSON: "person, then image", CELL: "prompt and seed, then image", IMAGE: "image"}
"""The units in words."""

WITHIN = "_within_person"
"""The suffix of a correlation within each person."""

Fold = tuple[dict[str, Statistics], dict[str, Statistics]]
"""All evaluators against the held-out labeler, and against the mean of the others."""

StatisticTable = dict[str, dict[str, Estimate]]
"""Evaluator (`evaluators.PEOPLE` and so on) to statistic to estimate."""


@dataclass(frozen=True)
class Sample:
    """The data to compare: labels of images, a model's score of each, and what belongs together.

    scores: NaN if the model has none, and then the image is not compared; higher is better.
    persons, cells: who each image shows, and the prompt and seed that generated it; None if unknown.
    """

    table: LabelTable
    scores: Float[np.ndarray, "samples"]
    persons: tuple[str, ...] | None
    cells: tuple[str, ...] | None = None

    @property
    def scored(self) -> Bool[np.ndarray, "samples"]:
        scored: np.ndarray = ~np.isnan(self.scores)
        return scored

    @property
    def labels(self) -> Labels:
        """The labels of the images with a score: everything shown side by side is measured on the same images."""
        return self.table.labels[:, self.scored]

    @property
    def unit(self) -> str:
        """The unit of folds and bootstrap."""
        return next((unit for unit, names in self._groupings() if names is not None and len(set(names)) > 1), IMAGE)

    @property
    def groups(self) -> list[str] | None:
        """The name of each scored image's unit; None if that is the image itself."""
        return dict(self._groupings()).get(self.unit)

    def _groupings(self) -> list[tuple[str, list[str] | None]]:
        given = ((PERSON, self.persons), (CELL, self.cells))
        return [(unit, None if names is None else list(compress(names, self.scored))) for unit, names in given]


@dataclass(frozen=True)
class Seat:
    """One fold, or the mean over all. Statistics that are meaningless for an evaluator are not in its row.

    labeler: the held-out labeler.
    n: the number of labels that they gave.
    against_labeler: agreement with the held-out labels: `spearman`, `pearson`, `kendall` (of the model's continuous
        score), the same with `_within_person`, and of the stars `mae`, `exact`, `within_one`, `kappa`. The people's row
        is the mean over the other labelers.
    against_others: agreement with the mean of the other labelers: the correlations, `mae`, and the grades `raw` and
        `corrected`. The people's row is the held-out labeler.
    """

    labeler: str
    n: int
    against_labeler: StatisticTable
    against_others: StatisticTable


@dataclass(frozen=True)
class Study:
    """Everything found about one metric.

    overall: correlations of the score with the mean label of all.
    seats, mean: each fold, and the mean over them.
    over_people: kappa of the model minus that of people, against the held-out labeler, averaged over folds; above 0,
        the model agrees better. over_constant: the constant's mean absolute error minus the model's, in steps.
    alpha: Krippendorff's ordinal alpha of the labelers.
    confusions: by evaluator (people, model, naive), counts of [label of the held-out labeler, stars] over all folds.
    stars: the model's stars in each fold, with clean thresholds.
    buckets: by method, fitted to all labels; empty if there are no stars.
    method, power: how thresholds were chosen.
    refused: why there are no stars; None if there are.
    alternative: the test of the model; None without stars or with too few labels. constant_alternative: the same test
        of the constant, which should fail a meaningful test.
    """

    sample: Sample
    overall: dict[str, Estimate]
    seats: tuple[Seat, ...]
    mean: Seat
    over_people: Estimate
    over_constant: Estimate
    alpha: Estimate
    confusions: dict[str, Float[np.ndarray, "5 5"]]
    stars: Labels
    buckets: dict[str, Buckets]
    method: str
    power: float
    refused: str | None
    alternative: AlternativeTest | None
    constant_alternative: AlternativeTest | None

    @property
    def mean_labels(self) -> Float[np.ndarray, "samples"]:
        """The mean label of each image, 1 to 5; NaN if nobody rated it."""
        return sample_scores(self.sample.table.labels)


@dataclass(frozen=True)
class ReportSection:
    """One metric's findings, and what a reader needs to know about them.

    labelers: from `label_matrix.describe_labelers`, in the order of the study's table.
    notes: sentences on gaps, duplicates, and the like.
    images: the file of each image; None if there are none to show.
    captions: what an image is, such as "ana, step 300"; None if only its id is known.
    """

    study: Study
    labelers: Sequence[Labeler]
    notes: Sequence[str] = ()
    images: Mapping[str, Path] | None = None
    captions: Mapping[str, str] | None = None

    @property
    def metric(self) -> str:
        return self.study.sample.table.metric

    @property
    def persons(self) -> int:
        """The number of people among the images with a score; 0 if unknown."""
        sample = self.study.sample
        return 0 if sample.persons is None else len(set(compress(sample.persons, sample.scored)))

    @property
    def facts(self) -> dict[str, str]:
        """What was compared, and how."""
        study, labels = self.study, self.study.sample.table.labels
        given, images = int((~np.isnan(labels)).sum()), labels.shape[1]
        scored = int((~np.isnan(study.sample.scores)).sum())
        return {
            "images": f"{images:,}, {'all' if scored == images else f'{scored:,} of them'} with a score",
            "labelers": f"{len(labels):,}",
            "labels": f"{given:,} of {labels.size:,} possible",
            "persons": f"{self.persons:,}" if self.persons else "unknown",
            "folds and intervals": f"by {UNIT_NAMES[study.sample.unit]}",
            "thresholds chosen by": METHOD_NAMES[study.method],
            "power of the distances": f"{study.power:g}",
        }


def study(sample: Sample, settings: StudySettings = DEFAULTS, rounds: int = ROUNDS) -> Study:
    """The complete study, with `rounds` bootstrap resamples.

    Raises:
        ValueError: fewer than two labelers.
    """
    labels, scores = sample.labels, sample.scores[sample.scored]
    if len(labels) < 2:
        raise ValueError(f"found the labels of {counted(len(labels), 'labeler')}, expected at least two")
    lineup = _lineup(sample, settings, rounds)
    unscored = int((~sample.scored).sum())
    overall = _estimates(lineup.correlations(scores, sample_scores(lineup.shared)), len(scores), unscored)
    refused = _refusal(overall["spearman"])
    starred = np.full(len(scores), np.nan) if refused else scores
    lineup = replace(lineup, stars=_stars(starred, labels, sample, settings))
    return _measured(sample, lineup, overall, settings.method, refused)


def _measured(sample: Sample, lineup: Lineup, overall: dict[str, Estimate], method: str, refused: str | None) -> Study:
    """The study, given all evaluators."""
    labels, scores, stars, power = lineup.labels, lineup.scores, lineup.stars, lineup.power
    seats = _seats(lineup)
    counts = [int(n) for n in (~np.isnan(labels)).sum(axis=1)]
    own, others = (mean_rows(list(side), counts) for side in zip(*seats, strict=True))
    total = sum(counts)
    return Study(
        sample=sample,
        overall=overall,
        seats=tuple(_seat(name, n, each) for name, n, each in zip(sample.table.labelers, counts, seats, strict=True)),
        mean=_seat("mean", total, (own, others)),
        over_people=estimate(own[MODEL]["kappa"] - own[PEOPLE]["kappa"], total),
        over_constant=estimate(own[CONSTANT]["mae"] - own[MODEL]["mae"], total),
        alpha=estimate(alpha(labels, lineup.weights), len(scores)),
        confusions=_confusions(lineup),
        stars=_spread(stars[MODEL], sample),
        buckets={} if refused else {name: fit(scores, labels, power) for name, fit in METHODS.items()},
        method=method,
        power=power,
        refused=refused,
        alternative=None if refused else alternative_test(stars[MODEL], labels),
        constant_alternative=alternative_test(stars[CONSTANT], labels),
    )


def _lineup(sample: Sample, settings: StudySettings, rounds: int) -> Lineup:
    """The evaluators before any stars are fitted."""
    labels, scores = sample.labels, sample.scores[sample.scored]
    clusters = (
        np.zeros(len(scores), dtype=np.int64) if sample.groups is None else fold_groups(sample.groups, len(scores))
    )
    rankings = dict(RANKINGS)
    if sample.unit == PERSON:
        rankings |= {name + WITHIN: within(each, clusters) for name, each in RANKINGS.items()}
    shared = standardized(normalized(labels))[0] if settings.standardize else normalized(labels)
    weights = resamples(clusters, rounds, settings.seed)
    return Lineup(labels, shared, scores, {}, weights, rankings, settings.power)


def _stars(
    scores: Float[np.ndarray, "samples"], labels: Labels, sample: Sample, settings: StudySettings
) -> dict[str, Labels]:
    """The stars of each evaluator in each labeler's place."""
    fit, power = METHODS[settings.method], settings.power
    groups = fold_groups(sample.groups, len(scores), settings.seed)
    model = clean_stars(scores, labels, groups, fit, power)
    return {
        MODEL: model,
        NAIVE: naive_stars(scores, labels, fit, power),
        CONSTANT: naive_stars(np.zeros(len(scores)), labels, METHODS["least_cost"], power),
        SHUFFLE: shuffled(model, settings.seed),
    }


def _seats(lineup: Lineup) -> list[Fold]:
    """The statistics of every evaluator in every fold."""
    people = people_rows(lineup)
    seats = tqdm(range(len(lineup.labels)), desc="seats", unit="labeler", leave=False, disable=None)
    return [({PEOPLE: people[seat], **against_labeler(lineup, seat)}, against_others(lineup, seat)) for seat in seats]


def _seat(labeler: str, n: int, fold: Fold) -> Seat:
    return Seat(labeler, n, *({name: _estimates(row, n) for name, row in side.items()} for side in fold))


def _spread(stars: Float[np.ndarray, "evaluators scored"], sample: Sample) -> Labels:
    """The stars of the scored images, in an array for all images."""
    found = np.full(sample.table.labels.shape, np.nan)
    found[:, sample.scored] = stars
    return found


def _confusions(lineup: Lineup) -> dict[str, Float[np.ndarray, "5 5"]]:
    labels, once = lineup.labels, np.ones((1, lineup.labels.shape[1]))
    found = {PEOPLE: _people_confusion(labels)}
    for name in (MODEL, NAIVE):
        pairs = zip(labels, lineup.stars[name], strict=True)
        found[name] = np.sum([confusion(own, stars, once)[0] for own, stars in pairs], axis=0)
    return found


def _people_confusion(labels: Labels) -> Float[np.ndarray, "5 5"]:
    """The confusion of each labeler with each other, from how often each label was given to an image."""
    given = (labels[:, :, None] == STEPS).sum(axis=0).astype(np.float64)
    pairs: np.ndarray = given.T @ given - np.diag(given.sum(axis=0))
    return pairs


def _refusal(found: Estimate) -> str | None:
    if np.isnan(found.mean):
        return "the scores, or the mean labels, are the same for all images, so their order cannot give stars"
    if found.mean < 0:
        return (
            f"scores do not increase with people's ratings (Spearman {shown(found)}); stars that follow the score "
            "would reverse people's order"
        )
    return None


def _estimates(row: Statistics, n: int, missing: int = 0) -> dict[str, Estimate]:
    return {name: estimate(values, n, missing) for name, values in row.items()}
