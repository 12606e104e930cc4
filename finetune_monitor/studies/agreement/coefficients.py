"""Agreement between two series with one value per image, for many weightings of the images at once.

`statistics` resamples single images by index; here entire people are resampled, and one set of weights serves hundreds
of coefficients.

A coefficient takes series of n images, and weights of rounds by n images (`resampling.resamples`): how often an image
is drawn in a round. It returns one number per round, NaN if undefined. Images without a value are left out.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from finetune_monitor.metrics.thresholds import HIGHEST, LOWEST, STEPS
from finetune_monitor.stats.estimate import MISSING
from finetune_monitor.stats.resampling import Values, Weights

Series: TypeAlias = Float[np.ndarray, "samples"]
Coefficient: TypeAlias = Callable[[Series, Series, Weights], Values]

AT_ONCE = 4_000_000
"""Numbers in memory at a time: rounds times images."""

LEAST_OTHERS = 2
"""The number of evaluators that a sample score without one of them must be based on."""

Labels = Float[np.ndarray, "evaluators samples"]
"""1 to 5; NaN if an evaluator gave none."""

Scores = Float[np.ndarray, "evaluators samples"]
"""Labels from 0 to 1, or standardized."""


def pearson(x: Series, y: Series, weights: Weights) -> Values:
    """Pearson's linear correlation (Pearson 1895), -1..1."""
    x, y, weights = _both(x, y, weights)
    wide_x, wide_y = (np.broadcast_to(_scaled(each), weights.shape) for each in (x, y))
    return _correlation(wide_x, wide_y, weights)


def spearman(x: Series, y: Series, weights: Weights) -> Values:
    """Spearman's rank correlation (Spearman 1904), -1..1; equal values share the mean of their ranks."""
    x, y, weights = _both(x, y, weights)
    return _correlation(_ranks(x, weights), _ranks(y, weights), weights)


def kendall(x: Series, y: Series, weights: Weights) -> Values:
    """Kendall's tau-b (Kendall 1945), -1..1: concordant minus discordant pairs, corrected for ties in either."""
    x, y, weights = _both(x, y, weights)
    rows = max(1, AT_ONCE // max(1, len(x)))
    return np.concatenate([_tau(x, y, weights[start : start + rows]) for start in range(0, len(weights), rows)])


def _tau(x: Series, y: Series, weights: Weights) -> Values:
    untied = _pairs_apart(x, weights) * _pairs_apart(y, weights)
    return _over(_concordance(x, y, weights), np.sqrt(untied))


def _concordance(x: Series, y: Series, weights: Weights) -> Values:
    """Concordant minus discordant pairs of drawn images, in O(n log n).

    A pair is counted at the highest bit in which its ranks in `y`, the series with fewer values, differ. There, the
    image with that bit set is the higher one in `y`; sums over the images in the order of `x` say how many of the
    others are below and above it.
    """
    ranks = (np.unique(each, return_inverse=True)[1] for each in (x, y))
    y_rank, x_rank = sorted(ranks, key=lambda rank: int(rank.max(initial=0)))
    found = np.zeros(len(weights))
    for bit in range(int(y_rank.max(initial=0)).bit_length()):
        group = y_rank >> (bit + 1)
        order = np.lexsort((x_rank, group))
        is_higher = (y_rank[order] >> bit & 1) == 1
        drawn = weights[:, order]
        lower = np.zeros((len(weights), len(x) + 1))
        np.cumsum(np.where(is_higher, 0, drawn), axis=1, out=lower[:, 1:])
        first, last = _stretches(group[order])
        equal, after = _stretches(group[order] * len(x) + x_rank[order])
        higher = np.flatnonzero(is_higher)
        below = lower[:, equal[higher]] - lower[:, first[higher]]
        above = lower[:, last[higher]] - lower[:, after[higher]]
        found += np.einsum("rn,rn->r", drawn[:, higher], below - above)
    return found


def _stretches(values: Int[np.ndarray, "n"]) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """For each place, where the stretch of equal values around it starts, and the place after its end."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.zeros(0, int)
    lengths = np.diff(np.append(starts, len(values)))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)


def mae(x: Series, y: Series, weights: Weights) -> Values:
    """Mean absolute error, in the unit of both."""
    return _mean(lambda x, y: np.abs(x - y), x, y, weights)


def exact(x: Series, y: Series, weights: Weights) -> Values:
    """Share of images on which both agree exactly, 0..1."""
    return _mean(lambda x, y: x == y, x, y, weights)


def within_one(x: Series, y: Series, weights: Weights) -> Values:
    """Share of images on which they differ by at most one step, 0..1."""
    return _mean(lambda x, y: np.abs(x - y) <= 1, x, y, weights)


def kappa(x: Series, y: Series, weights: Weights) -> Values:
    """Cohen's kappa with quadratic weights (Cohen 1968) between two series of labels 1..5: 1 identical, 0 chance."""
    return kappa_of(confusion(x, y, weights))


def confusion(x: Series, y: Series, weights: Weights) -> Float[np.ndarray, "rounds 5 5"]:
    """How many images have label i in `x` and label j in `y`."""
    x, y, weights = _both(x, y, weights)
    cell = (x - LOWEST).astype(np.int64) * len(STEPS) + (y - LOWEST).astype(np.int64)
    return (weights @ np.eye(len(STEPS) ** 2)[cell]).reshape(-1, len(STEPS), len(STEPS))


def kappa_of(table: Float[np.ndarray, "rounds 5 5"]) -> Values:
    """Quadratically weighted kappa of confusion matrices: 1 minus the observed over the expected squared distance."""
    distances = (STEPS[:, None] - STEPS[None]) ** 2
    total = table.sum(axis=(1, 2))
    expected = np.einsum("ri,rj,ij->r", table.sum(axis=2), table.sum(axis=1), distances)
    return 1 - _over((table * distances).sum(axis=(1, 2)) * total, expected)


def alpha(labels: Labels, weights: Weights) -> Values:
    """Krippendorff's alpha for ordinal labels 1..5 (Krippendorff 2011): 1 full agreement, 0 chance.

    Images with fewer than two labels do not count. The distance of two labels is the number of labels given between
    them, with half of those at the ends, squared.
    """
    given = (labels[:, :, None] == STEPS).sum(axis=0).astype(np.float64)
    paired = given.sum(axis=1) > 1
    given = given[paired]
    pairs = given[:, :, None] * given[:, None, :] - given[:, :, None] * np.eye(len(STEPS))
    pairs /= given.sum(axis=1)[:, None, None] - 1
    coincidences = np.einsum("rn,nij->rij", weights[:, paired], pairs, optimize=True)
    totals = coincidences.sum(axis=2)
    below = np.cumsum(totals, axis=1) - totals / 2  # labels below each, and half of its own
    distances = (below[:, :, None] - below[:, None, :]) ** 2
    n = totals.sum(axis=1)
    observed = (coincidences * distances).sum(axis=(1, 2))
    expected = np.einsum("ri,rj,rij->r", totals, totals, distances)
    return 1 - _over(observed * (n - 1), expected)


def grades(
    own: Float[np.ndarray, "samples"],
    others: Float[np.ndarray, "samples"],
    weights: Float[np.ndarray, "rounds samples"],
    power: float = 1.0,
) -> tuple[Float[np.ndarray, "rounds"], Float[np.ndarray, "rounds"]]:
    """Raw and corrected grades of scores 0 to 1 against the sample scores of others, for each weighting of the samples.

    With d the mean of |own - others|^power over the samples: the raw grade is 1 - d^(1/power), up to 1. It must never
    be shown alone, because always answering "3" gets a high one. The corrected grade is 1 - d / c, where c is the same
    mean over all pairs of a sample of one and a sample of the other: 1 for identical scores, 0 for chance agreement;
    with power 2 it is Lin's concordance coefficient (Lin 1989).
    """
    both = ~np.isnan(own) & ~np.isnan(others)
    x, y, weights = own[both], others[both], weights[:, both]
    total = weights.sum(axis=1)
    total = np.where(total > 0, total, MISSING)
    distance = weights @ np.abs(x - y) ** power / total
    chance = _mean_over_pairs(x, y, weights / total[:, None], power)
    corrected = 1 - distance / np.where(chance > 0, chance, MISSING)
    return 1 - distance ** (1 / power), corrected


def within(coefficient: Coefficient, groups: Int[np.ndarray, "samples"]) -> Coefficient:
    """The coefficient within each group (person), averaged over the groups, weighted by the images drawn from each."""

    def averaged(x: Series, y: Series, weights: Weights) -> Values:
        total, count = np.zeros(len(weights)), np.zeros(len(weights))
        present = ~np.isnan(x) & ~np.isnan(y)
        for group in np.unique(groups[present]):
            members = present & (groups == group)
            values = coefficient(x[members], y[members], weights[:, members])
            drawn = np.where(np.isnan(values), 0, weights[:, members].sum(axis=1))
            total += np.where(drawn > 0, values, 0) * drawn
            count += drawn
        return _over(total, count)

    return averaged


def normalized(labels: Float[np.ndarray, "*axes"]) -> Float[np.ndarray, "*axes"]:
    """Labels from 1 to 5 as scores from 0 to 1."""
    return (labels - LOWEST) / (HIGHEST - LOWEST)


def standardized(scores: Scores) -> tuple[Scores, Bool[np.ndarray, "evaluators"]]:
    """Each evaluator's scores minus their mean, divided by their standard deviation (population, ddof 0).

    An evaluator who always gives the same answer has no deviation: their scores become 0, and their flag is True.
    """
    present = ~np.isnan(scores)
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    centered = scores - np.where(present, scores, 0).sum(axis=1, keepdims=True) / count
    spread = np.sqrt(np.where(present, centered**2, 0).sum(axis=1, keepdims=True) / count)
    flat = ~(spread > 1e-12)
    return np.where(flat & present, 0.0, centered / np.where(flat, 1.0, spread)), flat[:, 0]


def sample_scores(scores: Scores, least: int = 1) -> Float[np.ndarray, "samples"]:
    """Mean score of each sample over the evaluators present; NaN if there are fewer than `least`."""
    present = ~np.isnan(scores)
    count = present.sum(axis=0)
    total = np.where(present, scores, 0).sum(axis=0)
    return np.where(count >= least, total / np.maximum(count, 1), MISSING)


def without(scores: Scores, evaluator: int) -> Float[np.ndarray, "samples"]:
    """Mean score of each sample over the other evaluators; NaN if fewer than two of them gave one."""
    return sample_scores(np.delete(scores, evaluator, axis=0), LEAST_OTHERS)


def _both(
    x: Series, y: Series, weights: Weights
) -> tuple[Float[np.ndarray, "both"], Float[np.ndarray, "both"], Float[np.ndarray, "rounds both"]]:
    """Only the images that have both values."""
    present = ~np.isnan(x) & ~np.isnan(y)
    return (x, y, weights) if present.all() else (x[present], y[present], weights[:, present])


def _mean(distance: Callable[[Series, Series], np.ndarray], x: Series, y: Series, weights: Weights) -> Values:
    x, y, weights = _both(x, y, weights)
    return _over(weights @ distance(x, y).astype(np.float64), weights.sum(axis=1))


def _over(above: Values, below: Values) -> Values:
    """The quotient; NaN if the divisor is 0 (up to rounding)."""
    return np.where(np.abs(below) > 1e-9, above / np.where(np.abs(below) > 1e-9, below, 1), np.nan)


def _correlation(x: Weights, y: Weights, weights: Weights) -> Values:
    total = weights.sum(axis=1)
    total = np.where(total > 0, total, np.nan)
    (x, x_variance), (y, y_variance) = (_centered(each, weights, total) for each in (x, y))
    covariance = np.einsum("rn,rn,rn->r", weights, x, y, optimize=False)
    found: Values = np.clip(covariance / np.sqrt(x_variance * y_variance), -1, 1)
    return found


def _centered(x: Weights, weights: Weights, total: Values) -> tuple[Weights, Values]:
    """Values minus the mean of the drawn images, and the variance times their number; NaN if only rounding error."""
    largest = np.abs(x).max(initial=0.0)
    x = x - (np.einsum("rn,rn->r", weights, x) / total)[:, None]
    variance = np.einsum("rn,rn,rn->r", weights, x, x, optimize=False)
    return x, np.where(variance > 1e-24 * total * largest**2, variance, np.nan)


def _scaled(x: Series) -> Series:
    """Rescaled to 0..1, whatever the unit, so that rounding errors do not count as a spread."""
    spread = np.ptp(x) if len(x) else 0.0
    return (x - x.min()) / spread if spread > 0 else np.zeros_like(x)


def _ranks(x: Series, weights: Weights) -> Weights:
    """Each image's rank in each round, equal values sharing the mean of theirs."""
    _, place = np.unique(x, return_inverse=True)
    counts = _grouped(x, weights)
    middles = np.cumsum(counts, axis=1) - counts / 2 + 0.5
    return middles[:, place]


def _grouped(x: Series, weights: Weights) -> Float[np.ndarray, "rounds values"]:
    """How often each distinct value, ascending, is drawn."""
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], x[order][1:] != x[order][:-1]]))
    return np.add.reduceat(weights[:, order], starts, axis=1) if len(x) else np.zeros((len(weights), 0))


def _pairs_apart(x: Series, weights: Weights) -> Values:
    """Pairs of drawn images that differ in `x`."""
    pairs: Values = (weights.sum(axis=1) ** 2 - (_grouped(x, weights) ** 2).sum(axis=1)) / 2
    return pairs


def _mean_over_pairs(
    x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], shares: Float[np.ndarray, "rounds n"], power: float
) -> Float[np.ndarray, "rounds"]:
    """Mean of |x - y|^power over all pairs; equal values of x, as an evaluator's are, are taken together."""
    values, place = np.unique(x, return_inverse=True)
    drawn = shares @ np.eye(len(values))[place]
    found: Values = np.einsum("rn,rn->r", drawn @ np.abs(values[:, None] - y) ** power, shares)
    return found
