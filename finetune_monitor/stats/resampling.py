"""The bootstrap: resamples of images, or of people and then their images, and the resulting interval.

The first of a statistic's resampled values is its value on the sample itself.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from finetune_monitor.stats.estimate import MISSING, ROUNDING, Estimate

Weights: TypeAlias = Float[np.ndarray, "rounds samples"]
Values: TypeAlias = Float[np.ndarray, "rounds"]

ROUNDS, LEVEL = 1000, 0.95

CHUNK = 250_000
"""Numbers resampled at a time: 2 MB per array, which fits in the processor's cache."""


def resamples(groups: Int[np.ndarray, "samples"], rounds: int = ROUNDS, seed: int = 0) -> Weights:
    """How often each image is drawn in `rounds` resamples; the first row, all ones, is the sample itself.

    Groups (people) are drawn with replacement, as many as there are; then, within each drawn group, as many images as
    it has. Two stages err on the wide side (compare Davison and Hinkley 1997, section 3.8). With one group, only images
    are drawn.
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


def resampled_rows(n: int, rounds: int = ROUNDS, seed: int = 0) -> Iterator[Int[np.ndarray, "some n"]]:
    """Indices of the images drawn from n (one stage, with replacement): `rounds` rows in total, one chunk at a time."""
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // n)
    for start in range(0, rounds, rows):
        yield random.integers(0, n, size=(min(rows, rounds - start), n))


def estimate(values: Values, n: int, missing: int = 0, level: float = LEVEL) -> Estimate:
    """A statistic with its percentile interval (Efron 1979), from its own value and the resampled ones.

    No interval for fewer than two images, or if the statistic is undefined in more than 1 - `level` of the resamples,
    or the same in all: they then do not show how much other images would vary, as of a few in perfect order.
    """
    low, high = _percentiles(values[1:], level) if n > 1 and not np.isnan(values[0]) else (MISSING, MISSING)
    return Estimate(float(values[0]), low, high, n, missing)


class Average:
    """Weighted mean of a statistic over folds; a resample's mean skips folds in which the statistic is undefined."""

    def __init__(self) -> None:
        self._total: Values | None = None
        self._count: Values | None = None

    def add(self, values: Values, weight: float = 1.0) -> None:
        defined = ~np.isnan(values)
        total, count = np.where(defined, weight * values, 0), weight * defined
        self._total = total if self._total is None else self._total + total
        self._count = count if self._count is None else self._count + count

    def mean(self, rounds: int) -> Values:
        """The mean in each round; NaN if the statistic was undefined in every fold."""
        if self._total is None or self._count is None:
            return np.full(rounds, np.nan)
        return np.where(self._count, self._total / np.where(self._count, self._count, 1), np.nan)


def _percentiles(found: Values, level: float) -> tuple[float, float]:
    """The ends of the middle `level` of the values; NaN if more than 1 - `level` are undefined, or all are equal."""
    defined = found[~np.isnan(found)]
    if len(defined) < level * len(found):
        return MISSING, MISSING
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high)) if np.ptp(defined) > ROUNDING else (MISSING, MISSING)
