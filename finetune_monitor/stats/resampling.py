"""Resamples of persons, then of their images, as weights; and a statistic's interval from its values under them.

The first row of the weights is 1 everywhere, so that the first value of a statistic is the statistic itself.
"""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from finetune_monitor.stats.estimate import Estimate
from finetune_monitor.stats.statistics import percentiles

Weights: TypeAlias = Float[np.ndarray, "rounds samples"]
Values: TypeAlias = Float[np.ndarray, "rounds"]

ROUNDS, LEVEL = 1000, 0.95


def resamples(groups: Int[np.ndarray, "samples"], rounds: int = ROUNDS, seed: int = 0) -> Weights:
    """How often each image is drawn, in `rounds` resamples after the row of ones.

    Groups (persons) are drawn with replacement, as many as there are, then within each drawn one as many images as it
    has. Two stages err to the wide side (compare Davison and Hinkley 1997, section 3.8). With one group only images are
    drawn.
    """
    random = np.random.default_rng(seed)
    if not len(groups):
        return np.ones((rounds + 1, 0))
    names, members = np.unique(groups, return_inverse=True)
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rounds)
    weights = np.ones((rounds + 1, len(groups)))
    for group in range(len(names)):
        columns = np.flatnonzero(members == group)
        even = np.full(len(columns), 1 / len(columns))
        weights[1:, columns] = random.multinomial(len(columns) * drawn[:, group], even)
    return weights


def estimate(values: Values, n: int, missing: int = 0) -> Estimate:
    """A statistic with its percentile interval, from its values under `resamples`.

    No interval where more than 5 % of the resamples leave it undefined.
    """
    low, high = percentiles(values[1:], LEVEL) if n > 1 and not np.isnan(values[0]) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high), n, missing)


class Average:
    """Mean of a statistic over folds; a fold in which a resample leaves it undefined is not in that resample's mean."""

    def __init__(self) -> None:
        self._total: Values | None = None
        self._count: Values | None = None

    def add(self, values: Values) -> None:
        defined = ~np.isnan(values)
        total, count = np.where(defined, values, 0), defined.astype(np.float64)
        self._total = total if self._total is None else self._total + total
        self._count = count if self._count is None else self._count + count

    def mean(self, rounds: int) -> Values:
        """NaN in a round in which nothing was defined."""
        if self._total is None or self._count is None:
            return np.full(rounds, np.nan)
        return np.where(self._count, self._total / np.maximum(self._count, 1), np.nan)
