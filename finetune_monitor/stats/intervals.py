"""How sure a mean, a share, a ceiling or a difference is: one formula each, with its source.

Images that share a seed are one draw of noise: prompts that are rendered from the same seeds rise and fall together.
So the draws are the sample size, not the images. Where every prompt has seeds of its own the two are the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri, stdtrit

from finetune_monitor.stats.estimate import MISSING, Estimate, FloatArray

LEVEL, POWER = 0.95, 0.8

UNBOUNDED = (-math.inf, math.inf)

WHAT_THEY_KNOW = (
    "The 95 % intervals say where a mean would lie with other seeds for these prompts. They know nothing of other "
    "prompts, of other photos, or of another training with the same settings."
)

Draws = Int[np.ndarray, "n"]
"""By image which draw of noise it is of, such as its seed."""


@dataclass(frozen=True)
class Spread:
    """A mean, its standard error, and the degrees of freedom that this error is known with; 0 where it is unknown."""

    mean: float
    error: float
    freedom: float

    @classmethod
    def of(cls, found: Estimate) -> "Spread":
        """What gave an interval of n things; from its lower end, as the upper one may have met a bound."""
        if math.isnan(found.low):
            return cls(found.mean, MISSING, 0)
        return cls(found.mean, (found.mean - found.low) / quantile(found.n - 1), found.n - 1)

    @property
    def half_width(self) -> float:
        """Of the interval; NaN where the error is unknown."""
        return quantile(self.freedom) * self.error

    def interval(self, n: int, missing: int = 0, bounds: tuple[float, float] = UNBOUNDED) -> Estimate:
        """Mean and Student's t interval (Student 1908): where a value cannot lie beyond bounds, neither does it."""
        if not self.freedom:
            return Estimate(self.mean, MISSING, MISSING, n, missing)
        low, high = (float(np.clip(self.mean + side * self.half_width, *bounds)) for side in (-1, 1))
        return Estimate(self.mean, low, high, n, missing)


def quantile(freedom: float, level: float = LEVEL) -> float:
    """Student's t beyond which lies half of 1 - `level`; NaN without a degree of freedom."""
    return float(stdtrit(freedom, (1 + level) / 2)) if freedom > 0 else MISSING


def t_interval(
    values: Float[np.ndarray, "n"], draws: Draws | None = None, bounds: tuple[float, float] = UNBOUNDED
) -> Estimate:
    """Mean of the values that are there, with Student's t interval over the draws of noise.

    Where each value is a draw of its own: mean ± t(n - 1) s / √n. Where draws are shared, and each has all its values,
    the same over the means of the draws (as `spread` has it). No interval where there are fewer than two draws.
    """
    n = int((~np.isnan(values)).sum())
    return spread(values, draws).interval(n, len(values) - n, bounds)


def spread(values: Float[np.ndarray, "n"], draws: Draws | None = None) -> Spread:
    """Mean and standard error of the values that are there, as a ratio of sums over the draws (Cochran 1977, 6.3).

    With C draws and the sum e of each one's deviations from the mean, the error is √(C / (C - 1) Σ e²) / n, with C - 1
    degrees of freedom: s / √n where each value is a draw of its own, and the error of the mean of the draws' means
    where all have the same number of values.
    """
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
    """A share of images, from values of 0 and 1, with the score interval (Wilson 1927).

    It holds where all are 0 or all are 1, as no interval around the mean does. Where draws are shared, the number of
    images is divided by the design effect (Kish 1965), the variance over draws against that of independent images: at
    least 1, and all that it can be where no image differs from the others, so that the draws are counted.
    """
    there = ~np.isnan(values)
    n, missing = int(there.sum()), int((~there).sum())
    if not n:
        return Estimate(MISSING, MISSING, MISSING, 0, missing)
    share = float(values[there].mean())
    count = n / _design_effect(values, draws, share, n)
    z = float(ndtri((1 + LEVEL) / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = min(middle - half, share), max(middle + half, share)  # rounding must not leave the share outside
    return Estimate(share, max(low, 0.0), min(high, 1.0), n, missing)


def _design_effect(values: Float[np.ndarray, "n"], draws: Draws | None, share: float, n: int) -> float:
    if draws is None:
        return 1.0
    most = n / len(np.unique(draws[~np.isnan(values)]))
    if share in (0.0, 1.0):
        return most
    found = spread(values, draws)
    independent = share * (1 - share) / (n - 1)
    return float(np.clip(found.error**2 / independent, 1.0, most)) if found.freedom else most


def jackknife(statistic: Callable[[Sequence[int]], float], n: int) -> Spread:
    """A statistic of n things with its standard error over them (Tukey 1958; for means over pairs Arvesen 1969).

    The pseudo-value of one thing is n times the statistic minus n - 1 times the statistic without that thing. They are
    taken for n independent draws.

    Args:
        statistic: of the things at these places.
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

    The error of the ratio is taken to first order (the delta method, Cochran 1977, 6.3): with the share r, the
    deviations of score - (1 - r) floor over the images, and r times the ceiling's error, over ceiling - floor. The
    degrees of freedom follow Welch (1947). Nothing where the ceiling cannot be told from the floor, where a share of
    the way would mean nothing.

    Args:
        scores, floors: of the same cells, NaN where an image was not measured.
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
    images = spread(np.where(pairs, scores - (1 - share) * floors, MISSING), draws)
    parts = np.array([images.error, share * ceiling.error])
    error = float(np.hypot(*parts)) / way
    half = quantile(_welch(parts, [images.freedom, ceiling.freedom])) * error if error else 0.0
    return Estimate(share, share - half, share + half, n, missing)


def ratio(numerators: FloatArray, denominators: FloatArray, draws: Draws) -> Estimate:
    """The ratio of two means over the same images, to first order (Cochran 1977, 6.3): the error of the mean of
    numerator - ratio denominator, over the mean denominator. Nothing where the denominator cannot be told from 0.
    """
    pairs = ~np.isnan(numerators) & ~np.isnan(denominators)
    n, missing = int(pairs.sum()), int((~pairs).sum())
    below = spread(np.where(pairs, denominators, MISSING), draws)
    if not (below.freedom and abs(below.mean) > below.half_width):
        return Estimate(MISSING, MISSING, MISSING, n, missing)
    found = float(numerators[pairs].mean()) / below.mean
    rest = spread(np.where(pairs, numerators - found * denominators, MISSING), draws)
    return Spread(found, rest.error / abs(below.mean), rest.freedom).interval(n, missing)


def ratio_of_spreads(numerator: Spread, denominator: Spread, n: int, missing: int = 0) -> Estimate:
    """The ratio of two independent means, to first order: errors add as squares, the second times the ratio.

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
    """The change that a paired comparison of so many draws finds with a power of 80 %: (t.975 + t.80) s / √draws.

    An approximation (Cohen 1988, 2.4, with Student's quantiles in place of the normal ones).

    Args:
        deviation: standard deviation of a draw's paired difference.
        freedom: degrees of freedom of the comparison.
    """
    if freedom < 1 or draws < 1:
        return MISSING
    return float((stdtrit(freedom, (1 + LEVEL) / 2) + stdtrit(freedom, POWER)) * deviation / math.sqrt(draws))
