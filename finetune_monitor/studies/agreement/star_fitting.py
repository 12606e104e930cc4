"""Cut a model's scores into stars by thresholds fitted to people's labels, of the same images or of other folds."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from finetune_monitor.metrics.thresholds import STEPS, Buckets
from finetune_monitor.studies.agreement.coefficients import Labels

BLOCKS = 5
"""Groups of images that stand in for persons where nothing tells which belong together."""

Fit: TypeAlias = Callable[[Float[np.ndarray, "samples"], Labels, float], Buckets]


def fit_buckets(scores: Float[np.ndarray, "samples"], labels: Labels, power: float = 1.0) -> Buckets:
    """The thresholds with the least cost, by dynamic programming over the samples in the order of their scores.

    Equal scores stay together; steps may be empty. A threshold lies half way between two neighboring scores. Samples
    without a score or a label are left out. Takes O(n log n + 5 n).
    """
    values, costs = _costs_by_score(scores, labels, power)
    sums = np.vstack([np.zeros(len(STEPS)), costs.cumsum(axis=0)])
    starts, best = [], np.full(len(values) + 1, np.inf)
    best[0] = 0.0
    for step in range(len(STEPS)):
        # The first i scores cost least where this step begins at the j-th: best[j] + sums[i] - sums[j], j at most i.
        start = _first_minimum(best - sums[:, step])
        best = best[start] + sums[:, step] - sums[start, step]
        starts.append(start)
    return Buckets(_thresholds(values, _backtrack(starts, len(values))), float(best[-1]))


def match_marginals(scores: Float[np.ndarray, "samples"], labels: Labels, power: float = 1.0) -> Buckets:
    """Thresholds that give each step as large a share of the samples as people give it, as far as ties allow.

    Least cost squeezes the extremes; these do not.
    """
    values, costs = _costs_by_score(scores, labels, power)
    used = _both_given(scores, labels)
    given = labels[:, used][~np.isnan(labels[:, used])]
    shares = np.array([(given < step).mean() for step in STEPS[1:]])
    measured = np.sort(scores[used])
    wanted = shares * len(measured)
    ends = np.searchsorted(measured, values, side="right")  # samples up to each score
    borders = np.array([np.abs(np.concatenate([[0], ends]) - place).argmin() for place in wanted])
    steps = np.searchsorted(borders, np.arange(len(values)), side="right")
    return Buckets(_thresholds(values, borders), float(costs[np.arange(len(values)), steps].sum()))


METHODS: Mapping[str, Fit] = {"least_cost": fit_buckets, "marginals": match_marginals}


def fold_groups(names: Sequence[str] | None, images: int, seed: int = 0) -> Int[np.ndarray, "samples"]:
    """The group of each image by what it belongs to, or one of five random blocks where that is not known."""
    if names is not None:
        return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1]
    return np.random.default_rng(seed).permutation(images) % min(BLOCKS, max(1, images))


def naive_stars(scores: Float[np.ndarray, "samples"], labels: Labels, fit: Fit, power: float = 1.0) -> Labels:
    """Stars of each image in each labeler's seat, by thresholds fitted to the others on the same images."""
    every = np.ones(len(scores), dtype=bool)
    return _stars(scores, labels, [(every, every)], fit, power)


def clean_stars(
    scores: Float[np.ndarray, "samples"],
    labels: Labels,
    groups: Int[np.ndarray, "samples"],
    fit: Fit,
    power: float = 1.0,
) -> Labels:
    """The same, by thresholds fitted to the others on the images of the other groups alone."""
    return _stars(scores, labels, [(groups != group, groups == group) for group in np.unique(groups)], fit, power)


def _costs_by_score(
    scores: Float[np.ndarray, "samples"], labels: Labels, power: float
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n 5"]]:
    """The distinct scores, ascending, and what each step would cost for the samples that have it."""
    used = _both_given(scores, labels)
    values, place = np.unique(scores[used], return_inverse=True)
    if not len(values):
        raise ValueError("found no sample that has both a score and a label")
    distances = np.abs(STEPS[:, None, None] - labels[None, :, used]) ** power
    each = np.nansum(distances, axis=1)
    return values, np.stack([np.bincount(place, row, len(values)) for row in each], axis=1)


def _both_given(scores: Float[np.ndarray, "samples"], labels: Labels) -> Bool[np.ndarray, "samples"]:
    """What has both a score and a label."""
    return ~np.isnan(scores) & ~np.isnan(labels).all(axis=0)


def _first_minimum(x: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """For each place, the first place up to it that holds the least value so far."""
    least = np.minimum.accumulate(x)
    fresh = np.concatenate([[True], least[1:] < least[:-1]])
    return np.maximum.accumulate(np.where(fresh, np.arange(len(x)), 0))


def _backtrack(starts: list[Int[np.ndarray, "n"]], end: int) -> Int[np.ndarray, "4"]:
    """Where each step after the first begins, in distinct scores."""
    borders = []
    for start in reversed(starts[1:]):
        end = int(start[end])
        borders.append(end)
    return np.array(borders[::-1])


def _thresholds(values: Float[np.ndarray, "n"], borders: Int[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    middles = values[:-1] / 2 + values[1:] / 2  # each half, lest the sum overflow
    between = np.where(middles > values[:-1], middles, values[1:])  # there is nothing between neighboring numbers
    return np.concatenate([[-np.inf], between, [np.inf]])[borders]


def _stars(
    scores: Float[np.ndarray, "samples"],
    labels: Labels,
    folds: Sequence[tuple[Bool[np.ndarray, "samples"], Bool[np.ndarray, "samples"]]],
    fit: Fit,
    power: float,
) -> Labels:
    """Fitted on the first images of a fold, given to the second.

    NaN where an image has no score, or where nothing is left to fit thresholds to.
    """
    stars = np.full(labels.shape, np.nan)
    for labeler in range(len(labels)):
        others = np.delete(labels, labeler, axis=0)
        usable = _both_given(scores, others)
        for train, test in folds:
            if usable[train].any():
                stars[labeler, test] = fit(scores[train], others[:, train], power).steps(scores[test])
    return stars
