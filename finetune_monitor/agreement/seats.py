"""Who sits in a labeler's seat, and how well they agree with that labeler and with the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from finetune_monitor.agreement import coefficients
from finetune_monitor.agreement.coefficients import Coefficient, Series
from finetune_monitor.agreement.grades import Labels, grades, normalised, without
from finetune_monitor.agreement.resampling import Values, Weights, average

PEOPLE, MODEL, NAIVE, CONSTANT, SHUFFLE = "people", "model", "model, naive fold", "constant", "shuffle"
"""The held-out labeler, or each of the others; the model with clean thresholds; with thresholds fitted on the images
it is tested on, which flatters; the label that costs least; the held-out labeler's own labels on shuffled images."""

DISTANCES: Mapping[str, Coefficient] = {
    name: getattr(coefficients, name) for name in ("mae", "exact", "within_one", "kappa")
}
RANKINGS: Mapping[str, Coefficient] = {name: getattr(coefficients, name) for name in ("spearman", "pearson", "kendall")}

Row = dict[str, Values]
Pairs = dict[frozenset[int], Row]


@dataclass(frozen=True)
class Lineup:
    """Everyone who takes a seat, and the weights that they are measured with.

    labels: of the people.
    scores: of the model, continuous.
    stars: 1 to 5 of everyone else in each labeler's seat, by name.
    rankings: the correlations to measure, by name.
    power: of the distances that grades count.
    """

    labels: Labels
    scores: Float[np.ndarray, "samples"]
    stars: Mapping[str, Labels]
    weights: Weights
    rankings: Mapping[str, Coefficient]
    power: float

    def correlations(self, x: Series, y: Series) -> Row:
        return {name: each(x, y, self.weights) for name, each in self.rankings.items()}

    def distances(self, x: Series, y: Series) -> Row:
        return {name: each(x, y, self.weights) for name, each in DISTANCES.items()}

    def graded(self, stars: Series, others: Float[np.ndarray, "samples"]) -> Row:
        """Mean absolute error in steps, and both grades, of stars against mean scores 0..1 of others."""
        own = normalised(stars)
        raw, corrected = grades(own, others, self.weights, self.power)
        return {"mae": 4 * coefficients.mae(own, others, self.weights), "raw": raw, "corrected": corrected}


def pairs_of(lineup: Lineup) -> Pairs:
    """Each two labelers against each other."""
    chosen = list(combinations(range(len(lineup.labels)), 2))
    found = {}
    for a, b in tqdm(chosen, desc="labelers against each other", unit="pair", leave=False):
        x, y = lineup.labels[a], lineup.labels[b]
        found[frozenset((a, b))] = {**lineup.correlations(x, y), **lineup.distances(x, y)}
    return found


def against_labeler(lineup: Lineup, seat: int, pairs: Pairs) -> dict[str, Row]:
    """Everyone against the held-out labels; people are the mean over the other labelers."""
    own = lineup.labels[seat]
    rows = {name: lineup.distances(stars[seat], own) for name, stars in lineup.stars.items()}
    rows[MODEL] |= lineup.correlations(lineup.scores, own)
    rows[SHUFFLE] |= lineup.correlations(lineup.stars[SHUFFLE][seat], own)
    return {PEOPLE: averaged([row for pair, row in pairs.items() if seat in pair]), **rows}


def against_others(lineup: Lineup, seat: int) -> dict[str, Row]:
    """Everyone against the mean of the other labelers; people are the held-out labeler."""
    own, others = lineup.labels[seat], without(normalised(lineup.labels), seat)
    stars = {PEOPLE: own, **{name: each[seat] for name, each in lineup.stars.items()}}
    rows = {name: lineup.graded(each, others) for name, each in stars.items()}
    for name, series in ((PEOPLE, own), (MODEL, lineup.scores), (SHUFFLE, stars[SHUFFLE])):
        rows[name] |= lineup.correlations(series, others)
    return rows


def averaged(rows: list[Row]) -> Row:
    """Mean of each statistic over the rows."""
    return {name: average([row[name] for row in rows]) for name in rows[0]} if rows else {}


def shuffled(labels: Labels, seed: int) -> Labels:
    """Each labeler's own labels on other images of theirs, drawn at random."""
    random, found = np.random.default_rng(seed), labels.copy()
    for row in found:
        present = ~np.isnan(row)
        row[present] = random.permutation(row[present])
    return found
