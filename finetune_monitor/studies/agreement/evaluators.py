"""Who takes a labeler's place, and how well they agree with that labeler and with the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from finetune_monitor.stats.resampling import Average, Values, Weights
from finetune_monitor.studies.agreement.coefficients import (
    Coefficient,
    Labels,
    Scores,
    Series,
    exact,
    grades,
    kappa,
    kendall,
    mae,
    normalized,
    pearson,
    spearman,
    within_one,
    without,
)

PEOPLE, MODEL, NAIVE, CONSTANT, SHUFFLE = "people", "model", "model, naive fold", "constant", "model, shuffled"
"""The held-out labeler, or each of the others; the model with clean thresholds; the model with thresholds fitted on its
own test images, which is optimistic; the single label with the lowest cost; the model's stars on shuffled images."""

DISTANCES: Mapping[str, Coefficient] = {"mae": mae, "exact": exact, "within_one": within_one, "kappa": kappa}
RANKINGS: Mapping[str, Coefficient] = {"spearman": spearman, "pearson": pearson, "kendall": kendall}

Statistics = dict[str, Values]
"""The statistics of one evaluator, by name."""


@dataclass(frozen=True)
class Lineup:
    """All evaluators, and the weights that they are measured with.

    labels: the labels of people.
    shared: their scores as averaged for correlations: normalized, or standardized.
    scores: the model's continuous scores.
    stars: 1 to 5, from all other evaluators in each labeler's place, by name.
    rankings: the correlations to measure, by name.
    power: the exponent of the distances in grades.
    """

    labels: Labels
    shared: Scores
    scores: Float[np.ndarray, "samples"]
    stars: Mapping[str, Labels]
    weights: Weights
    rankings: Mapping[str, Coefficient]
    power: float

    def correlations(self, x: Series, y: Series) -> Statistics:
        return {name: each(x, y, self.weights) for name, each in self.rankings.items()}

    def distances(self, x: Series, y: Series) -> Statistics:
        return {name: each(x, y, self.weights) for name, each in DISTANCES.items()}

    def graded(self, stars: Series, others: Float[np.ndarray, "samples"]) -> Statistics:
        """Mean absolute error in steps, and both grades, of stars against mean scores 0..1 of others."""
        own = normalized(stars)
        raw, corrected = grades(own, others, self.weights, self.power)
        return {"mae": 4 * mae(own, others, self.weights), "raw": raw, "corrected": corrected}


def people_rows(lineup: Lineup) -> list[Statistics]:
    """For each labeler, the others' agreement with them, averaged by the number of shared images."""
    labels = lineup.labels
    found = [{name: Average() for name in (*lineup.rankings, *DISTANCES)} for _ in labels]
    chosen = list(combinations(range(len(labels)), 2))
    for pair in tqdm(chosen, desc="labelers against each other", unit="pair", leave=False, disable=None):
        x, y = (labels[labeler] for labeler in pair)
        common = int((~np.isnan(x + y)).sum())
        if not common:
            continue
        for name, values in {**lineup.correlations(x, y), **lineup.distances(x, y)}.items():
            for labeler in pair:
                found[labeler][name].add(values, common)
    rounds = len(lineup.weights)
    return [{name: each.mean(rounds) for name, each in row.items()} for row in found]


def against_labeler(lineup: Lineup, seat: int) -> dict[str, Statistics]:
    """All evaluators other than people against the held-out labels."""
    own = lineup.labels[seat]
    rows = {name: lineup.distances(stars[seat], own) for name, stars in lineup.stars.items()}
    rows[MODEL] |= lineup.correlations(lineup.scores, own)
    rows[SHUFFLE] |= lineup.correlations(lineup.stars[SHUFFLE][seat], own)
    return rows


def against_others(lineup: Lineup, seat: int) -> dict[str, Statistics]:
    """All evaluators against the mean of the other labelers; people means the held-out labeler."""
    own, others = lineup.labels[seat], without(normalized(lineup.labels), seat)
    stars = {PEOPLE: own, **{name: each[seat] for name, each in lineup.stars.items()}}
    rows = {name: lineup.graded(each, others) for name, each in stars.items()}
    shared = without(lineup.shared, seat)
    for name, series in ((PEOPLE, own), (MODEL, lineup.scores), (SHUFFLE, stars[SHUFFLE])):
        rows[name] |= lineup.correlations(series, shared)
    return rows


def mean_rows(rows: list[dict[str, Statistics]], counts: Sequence[int]) -> dict[str, Statistics]:
    """The mean of each statistic over the labelers' places, weighted by their numbers of labels."""
    return {name: {key: _mean([row[name][key] for row in rows], counts) for key in rows[0][name]} for name in rows[0]}


def shuffled(stars: Labels, seed: int) -> Labels:
    """The same stars on randomly permuted images: the baseline for their shares alone."""
    random = np.random.default_rng(seed)
    found: Labels = stars.copy()
    for row in found:
        present = ~np.isnan(row)
        row[present] = random.permutation(row[present])
    return found


def _mean(values: Sequence[Values], counts: Sequence[int]) -> Values:
    average = Average()
    for each, count in zip(values, counts, strict=True):
        average.add(each, count)
    return average.mean(len(values[0]))
