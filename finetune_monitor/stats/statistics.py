"""Agreement between two series of numbers and how sure it is: correlations, errors, bootstrap intervals, bins.

A statistic takes arrays whose last axis is the images and gives one number for each of the other axes, so that a
thousand resamples are one call. It is NaN where it is undefined or where a value is missing, without a warning.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray

Values: TypeAlias = Float[np.ndarray, "*rounds n"]
Results: TypeAlias = Float[np.ndarray, "*rounds"] | float
Statistic: TypeAlias = Callable[..., Results]

CHUNK = 250_000
"""Numbers resampled at a time: 2 MB an array, which stays in the processor's cache."""


@dataclass(frozen=True)
class Bin:
    """The images whose value lies in [low, high); the last bin holds its upper edge too.

    low, high: the edges. The outermost bins also hold what lies beyond them.
    middle: mean of the value that the images were sorted into bins by.
    n: images in the bin.
    estimate: mean over them of what was asked for; its `n` is smaller where some of that is missing.
    """

    low: float
    high: float
    middle: float
    n: int
    estimate: Estimate


def mean(x: Values) -> Results:
    """Arithmetic mean; NaN of nothing."""
    return x.mean(axis=-1) if x.shape[-1] else np.full(x.shape[:-1], MISSING)[()]


def mae(x: Values, y: Values) -> Results:
    """Mean absolute error, in the unit of `x` and `y`: mean of |x - y|, from 0, lower is better."""
    return mean(np.abs(x - y))


def plcc(x: Values, y: Values) -> Results:
    """Pearson's linear correlation coefficient (Pearson 1895), -1..1; NaN where `x` or `y` is a constant."""
    if x.shape[-1] < 2:
        return np.full(x.shape[:-1], MISSING)[()]
    x_scaled, y_scaled = _unit(x), _unit(y)
    return np.clip((x_scaled * y_scaled).sum(axis=-1), -1, 1)


def srcc(x: Values, y: Values) -> Results:
    """Spearman's rank correlation coefficient (Spearman 1904), -1..1: Pearson's of the ranks, ties sharing theirs."""
    missing = np.isnan(x).any(axis=-1) | np.isnan(y).any(axis=-1)
    return np.where(missing, MISSING, plcc(ranks(x), ranks(y)))[()]


def ranks(x: Values) -> Values:
    """Rank of each number among those of its row, from 1; equal numbers share the mean of their ranks.

    What `scipy.stats.rankdata(x, axis=-1)` gives, about five times as fast over many rows.
    """
    n = x.shape[-1]
    order = np.argsort(x, axis=-1)
    ordered = np.take_along_axis(x, order, axis=-1)
    edges = np.ones((*x.shape[:-1], n + 1), dtype=bool)  # between unequal neighbors, and at both ends
    edges[..., 1:-1] = ordered[..., 1:] != ordered[..., :-1]
    place = np.arange(n)
    first = np.maximum.accumulate(np.where(edges[..., :-1], place, 0), axis=-1)
    last = np.minimum.accumulate(np.where(edges[..., 1:], place, n)[..., ::-1], axis=-1)[..., ::-1]
    found = np.empty(x.shape)
    np.put_along_axis(found, order, (first + last) / 2 + 1, axis=-1)
    return found


def interval(
    statistic: Statistic, *arrays: Float[np.ndarray, "n"], rounds: int = 1000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """A statistic over images with its percentile bootstrap interval (Efron 1979).

    Images are resampled as wholes: what the arrays say of one image stays together. An image with a NaN in any array
    is left out and counted as missing. `mean` holds the statistic's value. There is no interval for fewer than two
    images, nor where over 1 - `level` of the resamples leave the statistic undefined, as two or three images do for a
    correlation: the others would pretend to a certainty that is not there.
    """
    measured = ~np.isnan(np.stack(arrays)).any(axis=0)
    complete = [array[measured].astype(np.float64) for array in arrays]
    n, missing = int(measured.sum()), int((~measured).sum())
    value = float(statistic(*complete))
    if n < 2 or np.isnan(value):
        return Estimate(value, MISSING, MISSING, n, missing)
    found = [statistic(*(array[draws] for array in complete)) for draws in _draws(n, rounds, seed)]
    low, high = percentiles(np.concatenate([np.atleast_1d(part) for part in found]), level)
    return Estimate(value, low, high, n, missing)


def t_interval(values: Float[np.ndarray, "n"], level: float = 0.95) -> Estimate:
    """Mean of the values that are there, with Student's t interval: mean ± t(n - 1) s / √n (Student 1908).

    Exact where they are independent draws from a normal distribution, and for few of them nearer to what it says than
    a bootstrap; NaN for fewer than two.
    """
    there = values[~np.isnan(values)]
    n, missing = len(there), len(values) - len(there)
    mean = float(there.mean()) if n else MISSING
    if n < 2:
        return Estimate(mean, MISSING, MISSING, n, missing)
    half = float(stdtrit(n - 1, (1 + level) / 2) * there.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half, n, missing)


def binned(
    values: Float[np.ndarray, "n"], by: Float[np.ndarray, "n"], edges: Float[np.ndarray, "bins_and_1"]
) -> list[Bin]:
    """Mean of `values` in bins of `by`, each with its bootstrap interval; `by` and `edges` share a unit.

    An edge belongs to the bin above it, the last one to the bin below. What lies beyond the edges goes into the
    outermost bins. Empty bins are left out, and so are images whose `by` is missing.
    """
    place = np.where(np.isnan(by), -1, np.clip(np.digitize(by, edges) - 1, 0, len(edges) - 2))
    return [
        _bin(values[place == index], by[place == index], edges[index : index + 2])
        for index in np.unique(place[place >= 0])
    ]


def _bin(values: Float[np.ndarray, "n"], by: Float[np.ndarray, "n"], edges: Float[np.ndarray, "2"]) -> Bin:
    return Bin(float(edges[0]), float(edges[1]), float(by.mean()), len(by), interval(mean, values))


def _unit(x: Values) -> Values:
    """Centered, and scaled to length 1; NaN for a constant, whose rounding errors must not pass for a spread."""
    constant = (x == x[..., :1]).all(axis=-1, keepdims=True)
    centered = x - x.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centered, axis=-1, keepdims=True)
    return centered / np.where(constant | (length == 0), MISSING, length)


def _draws(n: int, rounds: int, seed: int) -> Iterator[Int[np.ndarray, "some n"]]:
    """Indices of resampled images, `rounds` rows in all, a chunk at a time."""
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // n)
    for start in range(0, rounds, rows):
        yield generator.integers(0, n, size=(min(rows, rounds - start), n))


def percentiles(found: Float[np.ndarray, "rounds"], level: float) -> tuple[float, float]:
    """The middle `level` of a bootstrap's values; NaN where over 1 - `level` of them are undefined."""
    defined = found[~np.isnan(found)]
    if len(defined) < level * len(found):
        return MISSING, MISSING
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_mean(values: FloatArray, rounds: int = 2000, level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of the measured values with a percentile bootstrap interval (Efron 1979), resampling the images.

    The interval speaks of the grid's images: how far the mean would move with other seeds. It knows nothing of
    another training run.
    """
    measured = values[~np.isnan(values)]
    n, missing = len(measured), len(values) - len(measured)
    if n == 0:
        return Estimate(MISSING, MISSING, MISSING, 0, missing)
    if n == 1:
        return Estimate(float(measured[0]), MISSING, MISSING, 1, missing)
    draws = np.random.default_rng(seed).integers(0, n, size=(rounds, n))
    low, high = np.quantile(measured[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(measured.mean()), float(low), float(high), n, missing)
