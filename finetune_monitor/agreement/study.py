"""One metric against its labelers: every number of the report, people, model, constant and shuffle side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from finetune_monitor.agreement.alternative import AlternativeTest, alternative_test
from finetune_monitor.agreement.buckets import STEPS, Buckets
from finetune_monitor.agreement.coefficients import alpha, confusion, within
from finetune_monitor.agreement.folds import METHODS, Fit, clean_stars, fold_groups, naive_stars
from finetune_monitor.agreement.grades import Labels, sample_scores
from finetune_monitor.agreement.labels import LabelTable
from finetune_monitor.agreement.resampling import ROUNDS, estimate, resamples
from finetune_monitor.agreement.seats import (
    CONSTANT,
    MODEL,
    NAIVE,
    PEOPLE,
    RANKINGS,
    SHUFFLE,
    Lineup,
    Row,
    against_labeler,
    against_others,
    averaged,
    pairs_of,
    shuffled,
)
from finetune_monitor.evaluation import Estimate
from finetune_monitor.markdown import shown

WITHIN = "_within_person"

Fold = tuple[dict[str, Row], dict[str, Row]]
"""Everyone against the labeler held out, and against the mean of the others."""

Table = dict[str, dict[str, Estimate]]
"""Evaluator (`seats.PEOPLE` and so on) to statistic to estimate."""


@dataclass(frozen=True)
class Sample:
    """What is compared: labels of images, a model's score of each, and whom each shows.

    scores: NaN where the model has none; higher is better.
    persons: None where they are not known.
    """

    table: LabelTable
    scores: Float[np.ndarray, "samples"]
    persons: tuple[str, ...] | None


@dataclass(frozen=True)
class Seat:
    """One fold, or the mean over all. Statistics that make no sense for an evaluator are not in its row.

    labeler: who was held out.
    n: labels that they gave.
    against_labeler: agreement with the held-out labels: `spearman`, `pearson`, `kendall` (of the model's continuous
        score), the same with `_within_person`, and of the stars `mae`, `exact`, `within_one`, `kappa`. The people's row
        is the mean over the other labelers.
    against_others: agreement with the mean of the other labelers: the correlations, `mae`, and the grades `raw` and
        `corrected`. The people's row is the held-out labeler.
    """

    labeler: str
    n: int
    against_labeler: Table
    against_others: Table


@dataclass(frozen=True)
class Study:
    """Everything found about one metric.

    known_persons: whether folds and bootstrap went by person; else by blocks of images, and over images.
    overall: correlations of the score with the mean label of all.
    seats, mean: each fold, and the mean over them.
    over_people: kappa of the model less that of people, against the labeler held out, mean over the seats; above 0 the
        model agrees better. over_constant: the constant's mean absolute error less the model's, in steps.
    alpha: Krippendorff's ordinal alpha of the labelers.
    confusions: by evaluator (people, model, naive), counts of [label of the held-out labeler, stars] over all seats.
    stars: the model's in each seat, clean.
    buckets: by method, fitted to all labels; empty where that was refused.
    method, power: how thresholds were chosen.
    refused: why there are no stars; None where there are.
    alternative: of the model; None where it was refused, or for too few labels. constant_alternative: the same test of
        the constant, which a test worth passing refuses.
    """

    sample: Sample
    known_persons: bool
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
        """Mean label of each image, 1 to 5; NaN where nobody rated it."""
        return sample_scores(self.sample.table.labels)


def study(sample: Sample, method: str = "least_cost", power: float = 1.0, seed: int = 0, rounds: int = ROUNDS) -> Study:
    """Measure everything.

    Args:
        method: how thresholds are chosen, a key of `folds.METHODS`.
        power: of the distances that grades and thresholds count.
        seed: of the resamples, the shuffle, and the blocks where persons are not known.
        rounds: resamples of the bootstrap.

    Raises:
        ValueError: fewer than two labelers.
    """
    labels, scores = sample.table.labels, sample.scores
    if len(labels) < 2:
        raise ValueError(f"expected the labels of two labelers at least, found {len(labels)}")
    known_persons = sample.persons is not None and len(set(sample.persons)) > 1
    groups = fold_groups(sample.persons, len(scores), seed)
    lineup = _lineup(sample, groups, known_persons, power, seed, rounds)
    overall = _estimates(lineup.correlations(scores, sample_scores(labels)), _both(scores, sample_scores(labels)))
    refused = _refusal(overall["spearman"])
    lineup = replace(lineup, stars=_stars(sample, groups, METHODS[method], power, seed, refused is not None))
    folds = _folds(lineup)
    own, others = (_mean_fold(side) for side in zip(*folds, strict=True))
    counts = [int(n) for n in (~np.isnan(labels)).sum(axis=1)]
    total = sum(counts)
    return Study(
        sample=sample,
        known_persons=known_persons,
        overall=overall,
        seats=tuple(_seat(name, n, fold) for name, n, fold in zip(sample.table.labelers, counts, folds, strict=True)),
        mean=_seat("mean", total, (own, others)),
        over_people=estimate(own[MODEL]["kappa"] - own[PEOPLE]["kappa"], total),
        over_constant=estimate(own[CONSTANT]["mae"] - own[MODEL]["mae"], total),
        alpha=estimate(alpha(labels, lineup.weights), int((~np.isnan(labels)).any(axis=0).sum())),
        confusions=_confusions(lineup),
        stars=lineup.stars[MODEL],
        buckets={} if refused else {name: fit(scores, labels, power) for name, fit in METHODS.items()},
        method=method,
        power=power,
        refused=refused,
        alternative=None if refused else alternative_test(lineup.stars[MODEL], labels),
        constant_alternative=alternative_test(lineup.stars[CONSTANT], labels),
    )


def _lineup(
    sample: Sample, groups: Int[np.ndarray, "samples"], known_persons: bool, power: float, seed: int, rounds: int
) -> Lineup:
    """Nobody in the seats yet."""
    rankings = dict(RANKINGS)
    if known_persons:
        rankings |= {name + WITHIN: within(each, groups) for name, each in RANKINGS.items()}
    weights = resamples(groups if known_persons else np.zeros_like(groups), rounds, seed)
    return Lineup(sample.table.labels, sample.scores, {}, weights, rankings, power)


def _stars(
    sample: Sample, groups: Int[np.ndarray, "samples"], fit: Fit, power: float, seed: int, refused: bool
) -> dict[str, Labels]:
    """Who sits in the seats; the model has no stars where they were refused."""
    labels, scores = sample.table.labels, sample.scores
    scores = np.full(len(scores), np.nan) if refused else scores
    return {
        MODEL: clean_stars(scores, labels, groups, fit, power),
        NAIVE: naive_stars(scores, labels, fit, power),
        CONSTANT: clean_stars(np.zeros(len(scores)), labels, groups, METHODS["least_cost"], power),
        SHUFFLE: shuffled(labels, seed),
    }


def _folds(lineup: Lineup) -> list[Fold]:
    """Everyone in every seat."""
    pairs = pairs_of(lineup)
    seats = tqdm(range(len(lineup.labels)), desc="seats", unit="labeler", leave=False)
    return [(against_labeler(lineup, seat, pairs), against_others(lineup, seat)) for seat in seats]


def _mean_fold(side: Sequence[dict[str, Row]]) -> dict[str, Row]:
    return {name: averaged([rows[name] for rows in side]) for name in side[0]}


def _seat(labeler: str, n: int, fold: Fold) -> Seat:
    return Seat(labeler, n, *({name: _estimates(row, n) for name, row in side.items()} for side in fold))


def _confusions(lineup: Lineup) -> dict[str, Float[np.ndarray, "5 5"]]:
    labels = lineup.labels
    pairs = {PEOPLE: [(labels[a], labels[b]) for a, b in permutations(range(len(labels)), 2)]}
    pairs |= {name: list(zip(labels, lineup.stars[name], strict=True)) for name in (MODEL, NAIVE)}
    once = np.ones((1, labels.shape[1]))
    return {
        name: sum((confusion(x, y, once)[0] for x, y in found), np.zeros((len(STEPS), len(STEPS))))
        for name, found in pairs.items()
    }


def _refusal(found: Estimate) -> str | None:
    if np.isnan(found.mean):
        return "the scores, or the mean labels, are the same for all images, so there is no order to cut into stars"
    if found.mean < 0:
        return (
            f"scores do not rise where people rate higher (Spearman {shown(found)}); stars that follow the score would "
            "turn people's order round"
        )
    return None


def _estimates(row: Row, n: int) -> dict[str, Estimate]:
    return {name: estimate(values, n) for name, values in row.items()}


def _both(x: Float[np.ndarray, "samples"], y: Float[np.ndarray, "samples"]) -> int:
    return int((~np.isnan(x) & ~np.isnan(y)).sum())
