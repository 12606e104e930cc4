"""A score over the steps: which points count, the smoothed curve, its best step, and the smallest detectable change."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from finetune_monitor.record.columns import ScoreColumn
from finetune_monitor.record.evaluation import (
    Evaluation,
    ScoredImage,
    estimate_change,
    estimate_mean,
    of_column,
    scheduled,
    seeds,
    values_of,
)
from finetune_monitor.stats.estimate import Estimate, FloatArray, shown
from finetune_monitor.stats.intervals import (
    Draws,
    Spread,
    change_spread,
    share_of_way,
    smallest_change,
    spread,
    t_change,
)

MEASURED_SHARE = 0.5
"""An evaluation counts only if at least this share of its images could be measured: one lucky face is not a score."""

MORE_IMAGES = 4
"""The factor on the number of images for which `Resolution` also states the detectable change."""


@dataclass(frozen=True)
class Point:
    """A score at a step, with the images, or otherwise the values, that it averages."""

    step: int
    score: Estimate
    images: tuple[ScoredImage, ...]
    samples: Sequence[float] = ()


def points(history: Sequence[Evaluation], column: str) -> list[Point]:
    """The evaluations that count, over the entire grid."""
    return _counted(_point(evaluation, column) for evaluation in history)


def points_of_prompts(
    history: Sequence[Evaluation], name: str, column: ScoreColumn, prompts: Sequence[int]
) -> list[Point]:
    """The evaluations that count over the prompts with these indices."""
    return _counted(_point_of_prompts(evaluation, name, column, prompts) for evaluation in history)


def _counted(found: Iterable[Point | None]) -> list[Point]:
    return [point for point in found if point is not None and counts(point.score)]


def counts(estimate: Estimate) -> bool:
    """Whether enough images were measured to compare the mean."""
    total = estimate.n + estimate.missing
    return total > 0 and math.isfinite(estimate.mean) and estimate.n >= MEASURED_SHARE * total


def smoothed(found: Sequence[Point]) -> list[float]:
    """The means, each averaged with its neighbors: weights (1, 2, 1) / 4, and (2, 1) / 3 at the ends.

    The best of many noisy means is biased upward by the noise that made it the best (the winner's curse); smoothing
    removes most of that bias and keeps the trend. Step 0, the untouched model, is not a neighbor and is not smoothed.
    """
    trained = [point.score.mean for point in found if point.step > 0]
    padded = np.array([math.nan, *trained, math.nan])
    around = np.stack([padded[:-2], padded[1:-1], padded[2:]])
    weights = np.array([[1.0], [2.0], [1.0]]) * ~np.isnan(around)
    smooth = np.nansum(weights * around, axis=0) / weights.sum(axis=0)
    return [*(point.score.mean for point in found if point.step == 0), *smooth.tolist()]


def best_of(history: Sequence[Evaluation], column: str, higher_is_better: bool = True) -> tuple[int, float] | None:
    """The earliest step at which the smoothed curve is best, and its value there; None if nothing was measured.

    Steps that crossed the limit of the guard that ended the run are not the best, however good their scores.
    """
    return _best(_accepted(history, smoothed_curve(history, column)), higher_is_better)


def rejected_steps(history: Sequence[Evaluation]) -> list[int]:
    """The steps that crossed the limit of a guard that ended the run."""
    ends = [(e.decision.rejected_from, e.step) for e in history if e.decision.rejected_from is not None]
    return [e.step for e in history if any(first <= e.step <= last for first, last in ends)]


def _accepted(history: Sequence[Evaluation], curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    rejected = rejected_steps(history)
    return [pair for pair in curve if pair[0] not in rejected]


def smoothed_curve(history: Sequence[Evaluation], column: str) -> list[tuple[int, float]]:
    """The smoothed curve as pairs of step and value, for the evaluations that count."""
    found = points(history, column)
    return list(zip((point.step for point in found), smoothed(found), strict=True)) if found else []


def _best(curve: Sequence[tuple[int, float]], higher_is_better: bool) -> tuple[int, float] | None:
    sign = 1.0 if higher_is_better else -1.0
    return max(curve, key=lambda pair: (sign * pair[1], -pair[0]), default=None)


def is_worse(scores: Sequence[Estimate | None], level: float, sign: float) -> bool:
    """Whether the last score is worse than a level, and not merely by chance.

    Args:
        sign: 1 if more is better, -1 if less is.
    """
    last = scores[-1]
    beyond = [score is not None and sign * (score.mean - level) < 0 for score in scores]
    return last is not None and holds(beyond, sure=worse_end(last, -sign) > -sign * level)


def holds(beyond: Sequence[bool], sure: bool) -> bool:
    """Whether the last value is beyond the level, and not merely by chance: for certain, or twice in a row."""
    return beyond[-1] and (sure or beyond[-2:] == [True, True])


def worse_end(score: Estimate, sign: float) -> float:
    """The worse (sign 1) or better (sign -1) end of the interval, multiplied by the sign."""
    end = score.low if sign > 0 else score.high
    return -math.inf if math.isnan(end) else sign * end


def change_between(first: Point, second: Point, name: str, column: ScoreColumn) -> Estimate:
    """The mean of second minus first, with its interval, over the cells or draws measured in both."""
    if first.samples and len(first.samples) == len(second.samples):
        return t_change(np.subtract(second.samples, first.samples))
    return estimate_change(*changes(first.images, second.images, name), column)


def way(floor: Evaluation, reached: Evaluation, column: str, ceiling: Estimate) -> Estimate:
    """How far a score has come from step 0 (0) to the score of the real photos against each other (1)."""
    old, new = _paired(floor.images, of_column(reached.images, column))
    return share_of_way(values_of(new, column), values_of(old, column), seeds(new), Spread.of(ceiling))


def ways(history: Sequence[Evaluation], step: int | None, ceilings: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """`way` for every column with a ceiling, at a step after 0; columns for which it is undefined are left out."""
    by_step = {evaluation.step: evaluation for evaluation in history}
    if not step or 0 not in by_step or step not in by_step:
        return {}
    found = {column: way(by_step[0], by_step[step], column, ceiling) for column, ceiling in ceilings.items()}
    return {column: share for column, share in found.items() if not math.isnan(share.mean)}


def way_in_words(share: Estimate) -> str:
    """Text such as `61% [48%, 74%] of the way from the base model to your photos`."""
    return f"{shown(share, '.0%')} of the way from the base model to your photos"


def changes(first: Sequence[ScoredImage], second: Sequence[ScoredImage], column: str) -> tuple[FloatArray, Draws]:
    """Second minus first for every cell that both have, and the draw of noise that each belongs to."""
    old, new = _paired(first, of_column(second, column))
    return values_of(new, column) - values_of(old, column), seeds(new)


def _paired(first: Sequence[ScoredImage], second: Sequence[ScoredImage]) -> tuple[list[ScoredImage], list[ScoredImage]]:
    """The images of the cells that both have, in the same order."""
    before = {image.cell.content: image for image in first}
    after = [image for image in second if image.cell.content in before]
    return [before[image.cell.content] for image in after], after


def contenders(
    history: Sequence[Evaluation], column: str, higher_is_better: bool = True, rejectable_from: Iterable[int] = ()
) -> list[int]:
    """The steps that are the best now or may become it with the next evaluation.

    The newest smoothed value changes with the next evaluation. All others are final, so only the best of them counts,
    and the best of the steps before those that a guard may still reject.

    Args:
        rejectable_from: the first step that each guard may reject with the next evaluation.
    """
    curve = smoothed_curve(history, column)
    final = _accepted(history, curve[:-1])
    safe = ([pair for pair in final if pair[0] < first] for first in rejectable_from)
    found = (_best(pairs, higher_is_better) for pairs in (final, *safe))
    return list(dict.fromkeys(step for step, _ in (*filter(None, found), *curve[-1:])))


@dataclass(frozen=True)
class Resolution:
    """The smallest change between two evaluations that a grid can detect (80% power, paired 95% interval).

    change: the detectable change with this grid, if as many of its images are measured as in the record.
    with_more: the same with four times as many images.
    is_guess: based on one evaluation only, as if its images were independent of the next one's.
    """

    images: int
    change: float
    with_more: float
    is_guess: bool

    def __str__(self) -> str:
        """A sentence; its numbers are in the score's own unit."""
        guess = " (estimated from one evaluation)" if self.is_guess else ""
        more = f"; with {MORE_IMAGES * self.images} images, {self.with_more:.2g}"
        return f"with {self.images} images this grid can detect a change of {self.change:.2g}{guess}{more}"


def resolution(history: Sequence[Evaluation], column: str) -> Resolution | None:
    """The resolution estimated from the record: how the same cells varied around their mean change between evaluations.

    Only the draws of noise (seeds) that were measured in both count. Evaluations on request do not: those a few steps
    apart hardly differ. None if it cannot be estimated, as with a single seed, or if nothing varies.
    """
    found = points(scheduled(history), column)
    trained = [point for point in found if point.step > 0] if len(found) > 2 else found
    pairs = list(pairwise(trained))
    compared: Sequence[tuple[Point, Point | None]] = pairs or [(point, None) for point in found]
    spreads = [_change_spread(*pair, column) for pair in compared]
    known = [each for each in spreads if each.freedom]
    if not any(each.error for each in known):
        return None
    images = len(found[-1].images)
    draws = round(sum(each.freedom + 1 for each in known) / len(known))
    deviation = math.sqrt(sum(each.error**2 * (each.freedom + 1) for each in known) / len(known))
    change, more = (smallest_change(deviation, times * draws, times * draws - 1) for times in (1, MORE_IMAGES))
    return Resolution(images, change, more, not pairs)


def _change_spread(first: Point, second: Point | None, column: str) -> Spread:
    """The spread of the mean change over the draws measured in both; for one point, with √2 times its own error."""
    if second is None:
        found = spread(values_of(first.images, column), seeds(first.images))
        return replace(found, error=found.error * math.sqrt(2))
    return change_spread(*changes(first.images, second.images, column))


def _point(evaluation: Evaluation, column: str) -> Point | None:
    score = evaluation.scores.get(column)
    samples = evaluation.samples.get(column, ())
    return None if score is None else Point(evaluation.step, score, evaluation.covered_by(column), samples)


def _point_of_prompts(evaluation: Evaluation, name: str, column: ScoreColumn, prompts: Sequence[int]) -> Point | None:
    order = list(dict.fromkeys(image.cell.prompt for image in evaluation.images if not image.cell.is_probe))
    wanted = {order[place] for place in prompts if place < len(order)}
    images = tuple(image for image in evaluation.images if image.cell.prompt in wanted)
    if not any(name in image.scores for image in images):
        return None
    return Point(evaluation.step, estimate_mean(images, name, column), images)
