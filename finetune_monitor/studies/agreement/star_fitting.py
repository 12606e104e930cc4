"""Convert a model's scores to stars by thresholds fitted to people's labels on the same images or on other folds."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from finetune_monitor.metrics.thresholds import STEPS, Buckets
from finetune_monitor.studies.agreement.coefficients import Labels

BLOCKS = 5
"""Number of random image groups that replace people if it is unknown which images belong together."""

Fit: TypeAlias = Callable[[Float[np.ndarray, "samples"], Labels, float], Buckets]


def fit_buckets(scores: Float[np.ndarray, "samples"], labels: Labels, power: float = 1.0) -> Buckets:
    """The thresholds with the lowest cost, by dynamic programming over the samples sorted by score.

    Equal scores stay together; steps may be empty. A threshold lies halfway between two neighboring scores. Samples
    without a score or a label are left out. Takes O(n log n + 5 n).
    """
    values, costs = _costs_by_score(scores, labels, power)
    sums = np.vstack([np.zeros(len(STEPS)), costs.cumsum(axis=0)])
    starts, best = [], np.full(len(values) + 1, np.inf)
    best[0] = 0.0
    for step in range(len(STEPS)):
        # The lowest cost of the first i scores if this step starts at the j-th: best[j] + sums[i] - sums[j], j at most
        # i.
        start = _first_minimum(best - sums[:, step])
        best = best[start] + sums[:, step] - sums[start, step]
        starts.append(start)
    return Buckets(_thresholds(values, _backtrack(starts, len(values))), float(best[-1]))


def match_marginals(scores: Float[np.ndarray, "samples"], labels: Labels, power: float = 1.0) -> Buckets:
    """Thresholds that give each step the same share of the samples as people do, as far as ties allow.

    Thresholds with the lowest cost compress the extremes; these do not.
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
    """The group of each image: what it belongs to, or one of five random blocks if that is unknown."""
    if names is not None:
        return np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1]
    return np.random.default_rng(seed).permutation(images) % min(BLOCKS, max(1, images))


def naive_stars(scores: Float[np.ndarray, "samples"], labels: Labels, fit: Fit, power: float = 1.0) -> Labels:
    """The stars of each image in each labeler's place, by thresholds fitted to the others on the same images."""
    every = np.ones(len(scores), dtype=bool)
    return _stars(scores, labels, [(every, every)], fit, power)


def clean_stars(
    scores: Float[np.ndarray, "samples"],
    labels: Labels,
    groups: Int[np.ndarray, "samples"],
    fit: Fit,
    power: float = 1.0,
) -> Labels:
    """The same, by thresholds fitted to the others only on the images of the other groups."""
    return _stars(scores, labels, [(groups != group, groups == group) for group in np.unique(groups)], fit, power)


def _costs_by_score(
    scores: Float[np.ndarray, "samples"], labels: Labels, power: float
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n 5"]]:
    """The distinct scores, ascending, and the cost of each step for the samples with that score."""
    used = _both_given(scores, labels)
    values, place = np.unique(scores[used], return_inverse=True)
    if not len(values):
        raise ValueError("found no sample with both a score and a label")
    distances = np.abs(STEPS[:, None, None] - labels[None, :, used]) ** power
    each = np.nansum(distances, axis=1)
    return values, np.stack([np.bincount(place, row, len(values)) for row in each], axis=1)


def _both_given(scores: Float[np.ndarray, "samples"], labels: Labels) -> Bool[np.ndarray, "samples"]:
    """Which samples have both a score and a label."""
    given: np.ndarray = ~np.isnan(scores) & ~np.isnan(labels).all(axis=0)
    return given


def _first_minimum(x: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """For each index, the first index up to it with the lowest value so far."""
    least = np.minimum.accumulate(x)
    fresh = np.concatenate([[True], least[1:] < least[:-1]])
    return np.maximum.accumulate(np.where(fresh, np.arange(len(x)), 0))


def _backtrack(starts: list[Int[np.ndarray, "n"]], end: int) -> Int[np.ndarray, "4"]:
    """Where each step after the first starts, as an index of distinct scores."""
    borders = []
    for start in reversed(starts[1:]):
        end = int(start[end])
        borders.append(end)
    return np.array(borders[::-1])


def _thresholds(values: Float[np.ndarray, "n"], borders: Int[np.ndarray, "4"]) -> Float[np.ndarray, "4"]:
    middles = values[:-1] / 2 + values[1:] / 2  # halved first, so that the sum does not overflow
    between = np.where(middles > values[:-1], middles, values[1:])  # there is no number between adjacent floats
    chosen: np.ndarray = np.concatenate([[-np.inf], between, [np.inf]])[borders]
    return chosen


def _stars(
    scores: Float[np.ndarray, "samples"],
    labels: Labels,
    folds: Sequence[tuple[Bool[np.ndarray, "samples"], Bool[np.ndarray, "samples"]]],
    fit: Fit,
    power: float,
) -> Labels:
    """Stars by thresholds fitted on the first images of a fold, for the second ones.

    NaN if an image has no score, or if there is nothing left to fit thresholds to.
    """
    stars = np.full(labels.shape, np.nan)
    for labeler in range(len(labels)):
        others = np.delete(labels, labeler, axis=0)
        usable = _both_given(scores, others)
        for train, test in folds:
            if usable[train].any():
                stars[labeler, test] = fit(scores[train], others[:, train], power).steps(scores[test])
    return stars
