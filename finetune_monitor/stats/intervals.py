"""Confidence intervals of means, shares, ceilings, and differences: one formula each, with its source.

Images that share a seed are one draw of noise: prompts that are rendered from the same seeds rise and fall together. So
the sample size is the number of draws, not of images. If every prompt has its own seeds, the two are equal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri, stdtrit

from finetune_monitor.stats.estimate import MISSING, ROUNDING, Estimate, FloatArray

LEVEL, POWER = 0.95, 0.8

UNBOUNDED = (-math.inf, math.inf)

FEWEST_EQUAL = 6
"""The fewest equal draws with an interval. The range of n draws misses their median with a probability of 2 / 2^n
(Thompson 1936): 3% for six, but 6% for five."""

WHAT_THEY_KNOW = (
    "The 95% intervals show where a mean would lie with other seeds for these prompts. They do not cover other "
    "prompts, other photos, or another training run with the same settings. The best step is chosen by these scores, "
    "so its own is slightly optimistic."
)

Draws = Int[np.ndarray, "n"]
"""The draw of noise that each image belongs to, such as its seed."""


@dataclass(frozen=True)
class Spread:
    """A mean, its standard error, and the degrees of freedom of that error; 0 if the error is unknown."""

    mean: float
    error: float
    freedom: float

    @classmethod
    def of(cls, found: Estimate) -> "Spread":
        """The spread behind an interval, computed from its lower end: the upper end may be clipped at a bound."""
        if math.isnan(found.low):
            return cls(found.mean, MISSING, 0)
        return cls(found.mean, (found.mean - found.low) / quantile(found.n - 1), found.n - 1)

    @property
    def half_width(self) -> float:
        """Half the width of the interval; NaN if the error is unknown."""
        return quantile(self.freedom) * self.error

    def interval(self, n: int, missing: int = 0, bounds: tuple[float, float] = UNBOUNDED) -> Estimate:
        """The mean with Student's t interval (Student 1908), clipped to the bounds of a single value."""
        if not self.freedom:
            return Estimate(self.mean, MISSING, MISSING, n, missing)
        low, high = (float(np.clip(self.mean + side * self.half_width, *bounds)) for side in (-1, 1))
        return Estimate(self.mean, low, high, n, missing)


def quantile(freedom: float, level: float = LEVEL) -> float:
    """The quantile of Student's t that leaves half of 1 - `level` above it; NaN without degrees of freedom."""
    return float(stdtrit(freedom, (1 + level) / 2)) if freedom > 0 else MISSING


def t_interval(
    values: Float[np.ndarray, "n"], draws: Draws | None = None, bounds: tuple[float, float] = UNBOUNDED
) -> Estimate:
    """The mean of the non-missing values, with Student's t interval over the draws of noise.

    If each value is its own draw: mean ± t(n - 1) s / √n. If draws are shared and each has all its values: the same
    over the means of the draws (see `spread`). There is no interval with fewer than two draws, or with fewer than six
    if they are all equal.
    """
    n = int((~np.isnan(values)).sum())
    return spread(values, draws).interval(n, len(values) - n, bounds)


def t_change(differences: Float[np.ndarray, "n"], draws: Draws | None = None) -> Estimate:
    """The mean paired difference with the interval of `t_interval`; [0, 0] if all differences are exactly 0."""
    n = int((~np.isnan(differences)).sum())
    return change_spread(differences, draws).interval(n, len(differences) - n)


def spread(values: Float[np.ndarray, "n"], draws: Draws | None = None) -> Spread:
    """Mean and standard error of the non-missing values, as a ratio of sums over the draws (Cochran 1977, 6.3).

    With C draws and the sum e of each one's deviations from the mean, the error is √(C / (C - 1) Σ e²) / n, with C - 1
    degrees of freedom: s / √n if each value is its own draw, and the error of the mean of the draws' means if all draws
    have the same number of values.

    Draws that are equal, up to rounding, do not show how much others would vary. If there are fewer than six, the error
    is unknown; otherwise it is 0, because then their range is an interval of the median (`FEWEST_EQUAL`).
    """
    found = _spread(values, draws)
    if not found.error < ROUNDING:
        return found
    return replace(found, error=0.0) if found.freedom + 1 >= FEWEST_EQUAL else Spread(found.mean, MISSING, 0)


def change_spread(differences: Float[np.ndarray, "n"], draws: Draws | None = None) -> Spread:
    """`spread` of paired differences; the error is 0 if all are exactly 0, because then both sides are the same."""
    return spread(differences, draws) if np.nan_to_num(differences).any() else _spread(differences, draws)


def _spread(values: Float[np.ndarray, "n"], draws: Draws | None = None) -> Spread:
    there = ~np.isnan(values)
    n = int(there.sum())
    if not n:
        return Spread(MISSING, MISSING, 0)
    mean = float(values[there].mean())
    members = np.arange(n) if draws is None else np.unique(draws[there], return_inverse=True)[1]
    sums = np.bincount(members, weights=values[there] - mean)
    count = len(sums)
    error = math.sqrt(count / (count - 1) * float((sums**2).sum())) / n if count > 1 else MISSING
    return Spread(mean, error, count - 1)


def wilson(values: Float[np.ndarray, "n"], draws: Draws | None = None) -> Estimate:
    """A share of images, from values 0 and 1, with the score interval (Wilson 1927).

    Unlike an interval around the mean, it remains valid if all values are 0 or all are 1. If draws are shared, the
    number of images is smaller (see `_sample_size`).
    """
    there = ~np.isnan(values)
    n, missing = int(there.sum()), int((~there).sum())
    if not n:
        return Estimate(MISSING, MISSING, MISSING, 0, missing)
    share = float(values[there].mean())
    count, z = _sample_size(values, draws), float(ndtri((1 + LEVEL) / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = min(middle - half, share), max(middle + half, share)  # rounding must not leave the share outside
    return Estimate(share, max(low, 0.0), min(high, 1.0), n, missing)


def share_change(differences: Float[np.ndarray, "n"], draws: Draws | None = None) -> Estimate:
    """The change of a share of images, from paired differences 1, 0, and -1, with the adjusted Wald interval.

    With the numbers r of images that rise to 1 and f of those that fall to 0, plus one each, as shares of n + 2 images:
    (r - f) ± z √((r + f - (r - f)²) / (n + 2)) (Bonett and Price 2012, J. Educ. Behav. Stat. 37:479). Unlike Student's
    t, it remains valid if all images change, or none does. If draws are shared, all numbers are smaller, as the number
    of images is (see `_sample_size`). With fewer than two draws there is no interval.
    """
    known = differences[~np.isnan(differences)]
    n, missing = len(known), len(differences) - len(known)
    found = _spread(differences, draws)
    if not found.freedom:
        return Estimate(found.mean, MISSING, MISSING, n, missing)
    size, z = _sample_size(differences, draws), float(ndtri((1 + LEVEL) / 2))
    count = size + 2
    rise, fall = ((float(np.maximum(side * known, 0.0).mean()) * size + 1) / count for side in (1, -1))
    half = z * math.sqrt((rise + fall - (rise - fall) ** 2) / count)
    return Estimate(found.mean, max(rise - fall - half, -1.0), min(rise - fall + half, 1.0), n, missing)


def _sample_size(values: Float[np.ndarray, "n"], draws: Draws | None) -> float:
    """The number of independent images that tell as much about a share as these n images of C draws.

    n / d (t(n - 1) / t(C - 1))² (Korn and Graubard 1998, Survey Methodology 24:193), but at least C, because images of
    one draw cannot agree more than completely. The design effect d is the variance of the mean over draws relative to
    that over independent images (Kish 1965), from 1 to the number of images per draw, which also applies if all images
    agree. If each image is its own draw: n.
    """
    there = ~np.isnan(values)
    n = int(there.sum())
    count = n if draws is None else len(np.unique(draws[there]))
    if count in (1, n):
        return float(count)
    found, independent = _spread(values, draws), _spread(values)
    most = n / count
    effect = float(np.clip((found.error / independent.error) ** 2, 1.0, most)) if independent.error > 0 else most
    return max(float(count), n / effect * (quantile(n - 1) / quantile(count - 1)) ** 2)


def jackknife(statistic: Callable[[Sequence[int]], float], n: int) -> Spread:
    """A statistic of n items with its standard error over them (Tukey 1958; for means over pairs, Arvesen 1969).

    The pseudo-value of an item is n times the statistic minus n - 1 times the statistic without that item. The
    pseudo-values are treated as n independent draws.

    Args:
        statistic: computes the statistic of the items with these indices.
    """
    everything = range(n)
    value = statistic(everything)
    if n < 3:
        return Spread(value, MISSING, 0)
    without = np.array([statistic([other for other in everything if other != left_out]) for left_out in everything])
    found = spread(n * value - (n - 1) * without)
    return Spread(value, found.error, found.freedom)


def share_of_way(scores: FloatArray, floors: FloatArray, draws: Draws, ceiling: Spread) -> Estimate:
    """How far the scores have come from the floor (0) to the ceiling (1): (score - floor) / (ceiling - floor).

    The error of the ratio is first-order (the delta method, Cochran 1977, 6.3): with the share r, it combines the
    deviations of score - (1 - r) floor over the images with r times the ceiling's error, divided by ceiling - floor.
    The degrees of freedom follow Welch (1947). There is no estimate if the ceiling does not differ significantly from
    the floor, because a share of the way would be meaningless.

    Args:
        scores, floors: for the same cells, NaN if an image was not measured.
        ceiling: of the real photos, with its own error.
    """
    pairs = ~np.isnan(scores) & ~np.isnan(floors)
    n, missing = int(pairs.sum()), int((~pairs).sum())
    nothing = Estimate(MISSING, MISSING, MISSING, n, missing)
    if not n or math.isnan(ceiling.mean):
        return nothing
    floor = spread(np.where(pairs, floors, MISSING), draws)
    way = ceiling.mean - floor.mean
    known = ceiling.freedom > 0 and floor.freedom > 0
    if not (known and way > math.hypot(floor.half_width, ceiling.half_width)):
        return nothing
    share = (float(scores[pairs].mean()) - floor.mean) / way
    images = change_spread(np.where(pairs, scores - (1 - share) * floors, MISSING), draws)
    if not images.freedom:
        return replace(nothing, mean=share)
    parts = np.array([images.error, share * ceiling.error])
    error = float(np.hypot(*parts)) / way
    half = quantile(_welch(parts, [images.freedom, ceiling.freedom])) * error if error else 0.0
    return Estimate(share, share - half, share + half, n, missing)


def ratio(numerators: FloatArray, denominators: FloatArray, draws: Draws) -> Estimate:
    """The ratio of two means over the same images, to first order (Cochran 1977, 6.3): the error of the mean of
    numerator - ratio denominator, over the mean denominator. No estimate if the denominator may be 0.
    """
    pairs = ~np.isnan(numerators) & ~np.isnan(denominators)
    n, missing = int(pairs.sum()), int((~pairs).sum())
    below = spread(np.where(pairs, denominators, MISSING), draws)
    if not (below.freedom and abs(below.mean) > below.half_width):
        return Estimate(MISSING, MISSING, MISSING, n, missing)
    found = float(numerators[pairs].mean()) / below.mean
    rest = change_spread(np.where(pairs, numerators - found * denominators, MISSING), draws)
    return Spread(found, rest.error / abs(below.mean), rest.freedom).interval(n, missing)


def ratio_of_spreads(numerator: Spread, denominator: Spread, n: int, missing: int = 0) -> Estimate:
    """The ratio of two independent means, to first order: errors add in quadrature, the second scaled by the ratio.

    The degrees of freedom follow Welch (1947).
    """
    if math.isnan(numerator.mean) or not denominator.mean:
        return Estimate(MISSING, MISSING, MISSING, n, missing)
    found = numerator.mean / denominator.mean
    parts = np.array([numerator.error, found * denominator.error])
    if not (numerator.freedom and denominator.freedom and parts.any()):
        return Estimate(found, MISSING, MISSING, n, missing)
    error = float(np.hypot(*parts)) / abs(denominator.mean)
    return Spread(found, error, _welch(parts, [numerator.freedom, denominator.freedom])).interval(n, missing)


def _welch(errors: Float[np.ndarray, "parts"], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent parts with these standard errors (Welch 1947)."""
    return float((errors**2).sum() ** 2 / (errors**4 / freedoms).sum())


def smallest_change(deviation: float, draws: int, freedom: int) -> float:
    """The change that a paired comparison of this many draws detects with 80% power: (t.975 + t.80) s / √draws.

    An approximation (Cohen 1988, 2.4, with Student's quantiles instead of normal ones).

    Args:
        deviation: standard deviation of a draw's paired difference.
        freedom: degrees of freedom of the comparison.
    """
    if freedom < 1 or draws < 1:
        return MISSING
    return float((stdtrit(freedom, (1 + LEVEL) / 2) + stdtrit(freedom, POWER)) * deviation / math.sqrt(draws))
